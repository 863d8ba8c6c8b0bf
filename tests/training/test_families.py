"""Every family through the trainer's own module and a cache on disk: the losses and weights of the frozen arm."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from er.config import Config
from er.encoders import load_model
from er.errors import UserError
from er.results import Result
from er.testing import FAMILIES, padded_batch, same, tiny, tiny_checkpoint
from er.training.adapters import NAME, add_adapter
from er.training.batches import BucketedBatches
from er.training.data import Split, Tokens
from er.training.methods import Parts, assemble
from er.training.module import RecyclingModule
from er.training.recycle import open_cache, recycle
from er.training.run import run

Small = Callable[..., Config]

CPU = torch.device("cpu")
DEPTH = 4


@dataclass
class Task:
    """As much of a task as a step of training needs."""

    head: str = "sequence"
    outputs: int = 2


@pytest.fixture
def configured(small: Small, tmp_path: Path) -> Callable[..., Config]:
    """Compose a run of a tiny model of a family."""

    def compose(family: str, *overrides: str) -> Config:
        path = tmp_path / family
        if not path.exists():
            tiny_checkpoint(path, family, "sequence", layers=DEPTH)
        adapter = ["method.adapter.bottleneck=8"] if "method=reduced_adapters" in overrides else []
        return small(f"model.path={path}", "model.attention=eager", "cut=2", *overrides, *adapter)

    return compose


def split_of(config: Config, ragged: bool = True) -> Split:
    """Return inputs as a tokenizer of this model would give them, of uneven length or of one."""
    lengths = np.random.default_rng(0).integers(2, 12, size=48) if ragged else np.full(48, 9)
    batch = padded_batch(load_model(config.model).config, lengths.tolist())
    columns = {
        name: [row[:length].numpy() for row, length in zip(column, lengths, strict=True)]
        for name, column in batch.items()
        if name != "attention_mask"
    }
    pad = int(load_model(config.model).config.pad_token_id)
    return Split(Tokens(columns, pad), torch.arange(48) % 2)


def parts_of(config: Config) -> Parts:
    task: Any = Task()
    torch.manual_seed(config.seed)  # as a run does, for adapters
    return assemble(config, 2, task)


def stepped(
    config: Config, parts: Parts, split: Split, count: int = 15, optimize: Any = torch.optim.AdamW, lr: float = 1e-3
) -> tuple[list[float], RecyclingModule]:
    """Train for so many steps with dropout, and return the losses."""
    task: Any = Task()
    module = RecyclingModule(parts, task, config.optim).train()
    optimizer = optimize([p for p in module.parameters() if p.requires_grad], lr=lr)
    torch.manual_seed(0)
    losses: list[float] = []
    for epoch in range(count):
        batches = BucketedBatches(split.tokens.lengths, 8, seed=epoch)
        for rows in list(batches)[: count - len(losses)]:
            batch = split.batch(rows)
            loss = module.loss(module(batch), batch["labels"])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses, module


@pytest.mark.parametrize("method", ["reduced", "reduced_adapters"])
@pytest.mark.parametrize("family", FAMILIES)
def test_fifteen_steps_from_the_cache_lose_what_the_frozen_arm_loses(
    configured: Callable[..., Config], family: str, method: str
) -> None:
    """To the bit in the shapes that the cache was built in, weights included; to rounding in others."""
    config = configured(family, f"method={method}", "cache.batch_tokens=72")
    expected, recomputed, losses, recycled = both_arms(config, split_of(config, ragged=False))

    assert losses == expected
    assert len(set(expected)) == len(expected) == 15, "dropout acts above the cut"
    for name, weight in recycled.trained().items():
        assert torch.equal(weight, recomputed.trained()[name]), name

    # Adam would make whole steps out of gradients that only rounding keeps from zero
    expected, _, losses, _ = both_arms(config, split_of(config), optimize=torch.optim.SGD, lr=0.05)
    np.testing.assert_allclose(losses, expected, atol=1e-5, rtol=0)


def both_arms(config: Config, split: Split, **options: Any) -> tuple[Any, ...]:
    """Train the frozen arm, then the recycled one through a cache on disk, whose lower part is gone."""
    frozen, cached, through = parts_of(config), parts_of(config), replace(split)
    assert cached.lower is not None
    recycle(open_cache(config, cached.lower), cached.lower, {"train": through}, config, CPU)
    cached.lower = None
    return *stepped(config, frozen, split, **options), *stepped(config, cached, through, **options)


@pytest.mark.parametrize("family", ["deberta-v2+conv", "t5", "t5+gated", "mpnet"])
@pytest.mark.parametrize("method", ["reduced", "reduced_adapters"])
def test_what_layers_share_across_the_cut_does_not_move(
    configured: Callable[..., Config], tmp_path: Path, family: str, method: str
) -> None:
    """A whole run, whose trained weights hold none that the lower part reads: those are the checkpoint's for ever."""
    config = configured(family, f"method={method}", "method.head=linear")
    shared = ("rel_embeddings", "encoder.LayerNorm", "encoder.conv", "relative_attention_bias", "embed")
    parts = parts_of(config)
    before = {name: p.detach().clone() for name, p in parts.upper.named_parameters()}
    held = [name for name in before if any(word in name for word in shared)]

    result = run(config)
    stepped(config, parts, split_of(config))
    (weights,) = tmp_path.rglob("weights.safetensors")

    assert result.steps > 0 and held
    assert not [name for name in load_file(weights) if any(word in name for word in shared)]
    after = dict(parts.upper.named_parameters())
    assert all(torch.equal(after[name], before[name]) for name in held)
    assert any(not torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reduced_model_trained_from_the_cache_fits_the_whole_model(
    configured: Callable[..., Config], family: str
) -> None:
    config = configured(family, "method=reduced", "method.head=stock")
    upper, expected, inputs = trained_from_the_cache(config)
    whole = load_model(config.model, AutoModelForSequenceClassification, num_labels=2)
    state = upper.model.state_dict()
    missing, unexpected = whole.load_state_dict(state, strict=False)

    assert not unexpected
    assert not set(missing) & set(state)
    assert same(whole.eval()(**inputs), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_trained_from_the_cache_fits_the_whole_model(
    configured: Callable[..., Config], family: str, tmp_path: Path
) -> None:
    config = configured(family, "method=reduced_adapters", "method.head=stock")
    upper, expected, inputs = trained_from_the_cache(config)
    upper.model.save_adapter(str(tmp_path / "adapter"), NAME)
    assert config.method.adapter is not None
    assert "2" in json.dumps(json.loads((tmp_path / "adapter" / "adapter_config.json").read_text()))

    whole = load_model(config.model, AutoModelForSequenceClassification, num_labels=2)
    add_adapter(whole, replace(config.method.adapter, bottleneck=4), 0)  # as any model with the library has it
    whole.delete_adapter(NAME)
    whole.load_adapter(str(tmp_path / "adapter"), load_as="taken", set_active=True)
    kinds = ("classifier", "classification_head", "pooler")
    heads = {name: t for name, t in upper.model.state_dict().items() if any(kind in name for kind in kinds)}
    whole.load_state_dict(heads, strict=False)

    assert heads
    assert same(whole.eval()(**inputs), expected)


def trained_from_the_cache(config: Config) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    """Return an upper part that was trained from the cache, and what it then says of some inputs."""
    parts, split = parts_of(config), split_of(config)
    lower = parts.lower
    assert lower is not None
    recycle(open_cache(config, lower), lower, {"train": split}, config, CPU)
    parts.lower = None
    _, module = stepped(config, parts, split, count=6)
    inputs = split.tokens.batch(np.arange(4))
    upper: Any = module.upper.eval()
    with torch.no_grad():
        return upper, upper(lower(**inputs), **inputs), inputs


def test_activations_of_a_t5_that_overflow_are_refused_and_float32_holds_them(small: Small, tmp_path: Path) -> None:
    model = tiny("t5", layers=DEPTH)
    with torch.no_grad():
        model.shared.weight.mul_(1e6)
    path = tiny_checkpoint(tmp_path / "t5", "t5", layers=DEPTH)
    model.save_pretrained(path)
    options = [f"model.path={path}", "model.attention=eager", "method=reduced", "cut=2", "optim.epochs=1"]

    with pytest.raises(UserError, match=r"does not fit float16.*cache.dtype=bfloat16 or cache.dtype=float32"):
        run(small(*options, "cache.dtype=float16"))
    assert not list((tmp_path / "runs").rglob("result.json"))
    result: Result = run(small(*options))
    assert result.config["cache"]["dtype"] == "float32", "the default, T5's too"
