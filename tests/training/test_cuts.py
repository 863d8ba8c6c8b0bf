"""Several cuts in one pass: the same activations as separate builds, each layer run once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from er.cache import ActivationCache
from er.cache.spaces import spaces
from er.commands import cache as command
from er.commands import upkeep
from er.config import Config
from er.encoders import Lower, load_model
from er.errors import UserError
from er.testing import FAMILIES, tiny_checkpoint
from er.training.cuts import fill_cuts
from er.training.data import Tokens
from er.training.recycle import encoder, fill, open_cache

Small = Callable[..., Config]

CPU = torch.device("cpu")
CUTS = [1, 2, 4]


@pytest.fixture
def tokens() -> Tokens:
    random = np.random.default_rng(0)
    rows = [random.integers(5, 90, size=length) for length in random.integers(2, 20, size=60)]
    return Tokens({"input_ids": rows}, 0)


def separately(config: Config, k: int, tokens: Tokens) -> ActivationCache:
    lower = Lower(load_model(config.model), k)
    cache = open_cache(config, lower)
    fill(cache, tokens, encoder(lower, tokens, config.trainer.precision, CPU), config)
    return cache


def rows(cache: ActivationCache, tokens: Tokens) -> torch.Tensor:
    return cache.packed(cache.locate(tokens.keys()))[0]


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("family", FAMILIES)
def test_one_pass_gives_what_separate_builds_give_to_the_bit(
    small: Small, tokens: Tokens, tmp_path: Path, family: str, dtype: str
) -> None:
    path = tiny_checkpoint(tmp_path / family, family, layers=4)
    options = [f"model.path={path}", "model.attention=eager", f"cache.dtype={dtype}", "cache.batch_tokens=64"]
    one, other = small(*options), small(*options, f"paths.cache={tmp_path}/separate")

    together = fill_cuts(load_model(one.model), CUTS, tokens, one, CPU)

    for k, cache in zip(CUTS, together, strict=True):
        alone = separately(other, k, tokens)
        assert cache.space == alone.space
        assert torch.equal(rows(cache, tokens), rows(alone, tokens)), k


def test_each_layer_runs_once_for_all_cuts(small: Small, tokens: Tokens) -> None:
    config = small()
    model = load_model(config.model)
    calls = [0] * 4
    layers: nn.ModuleList = model.encoder.layer
    for index, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, index=index: calls.__setitem__(index, calls[index] + 1))

    fill_cuts(model, [1, 3], tokens, config, CPU)

    assert calls[0] == calls[1] == calls[2] > 0 and calls[3] == 0


@pytest.mark.parametrize("there", [[1], [2], [4], [1, 2], [2, 4]])
def test_what_is_there_is_not_built_again(small: Small, tokens: Tokens, there: list[int]) -> None:
    config = small("cache.segment_mb=1")
    half = tokens.rows(np.arange(30))
    for k in there:
        separately(config, k, half)

    for cache in fill_cuts(load_model(config.model), CUTS, tokens, config, CPU):
        assert not len(cache.missing(tokens.keys()))
    assert {space.entries for space in spaces(Path(config.paths.cache))} == {60}


def test_the_cost_of_a_shallower_cut_is_less(small: Small, tokens: Tokens) -> None:
    config = small()
    shallow, deep = fill_cuts(load_model(config.model), [1, 4], tokens, config, CPU)

    assert 0 < shallow.cost(shallow.locate(tokens.keys())) < deep.cost(deep.locate(tokens.keys()))


def test_the_verb_fills_every_cut_for_later_runs(small: Small, train: Callable[..., object]) -> None:
    command.build(small("cut=[1,3]"))
    listed = spaces(Path(small().paths.cache))

    assert [(space.model, space.space.cut_layer, space.entries) for space in listed] == [("hf", 1, 144), ("hf", 3, 144)]
    for k in (1, 3):
        result: object = train(f"cut={k}", "method=reduced")
        assert result.cache["misses"] == 0  # type: ignore[attr-defined]
    text = upkeep.table(Path(small().paths.cache))
    assert "2 spaces" in text and all(space.directory.name[:12] in text for space in listed)


def test_the_verb_fills_a_source(small: Small) -> None:
    command.build(small("method=cross_model"))

    assert [space.space.cut_layer for space in spaces(Path(small().paths.cache))] == [4]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["method=finetune"], "recycles nothing"),
        (["cut=[0,2]"], "layer 0"),
        (["cut=[1,9]"], "cut=9"),
        (["cut=[1,x]"], "cut=x"),
        (["cut=[1,2]", "cache.max_bytes=1kB"], "max_bytes=1kB"),
    ],
)
def test_what_cannot_be_cached_is_refused(small: Small, overrides: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        command.build(small(*overrides))


def test_only_the_cache_takes_several_cuts(train: Callable[..., object]) -> None:
    with pytest.raises(UserError, match="only `er cache` takes several"):
        train("cut=[1,2]")


def test_a_plain_list_of_cuts_is_read_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(command, "command", lambda: seen.append(list(sys.argv)))
    for words in (["cut=3,6,9"], ["cut=0.25,0.5"], ["cut=[3,6]"], ["cut=3"], ["-m", "cut=3,6"]):
        monkeypatch.setattr("sys.argv", ["er cache", *words])
        command.main()

    assert [words[-1] for words in seen] == ["cut=[3,6,9]", "cut=[0.25,0.5]", "cut=[3,6]", "cut=3", "cut=3,6"]


def test_an_empty_cache_is_said_to_be_empty(tmp_path: Path) -> None:
    assert upkeep.table(tmp_path / "nothing").startswith("no activations in")
