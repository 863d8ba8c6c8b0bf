"""What each method trains: which weights, how many of them in each layer, and what it refuses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from er.config import Adapter, Config
from er.errors import UserError
from er.testing import FAMILIES, padded_batch, tiny, tiny_checkpoint
from er.training.adapters import BELOW, BOTTLENECKS, KINDS, NO_PREFIX, add_adapter, is_adapter
from er.training.methods import Parts, assemble

Small = Callable[..., Config]

DEPTH = 4
HIDDEN = 32
POOLED = ("prefix", "compacter")
LAYER = re.compile(r"\.(?:layers?|block)\.(\d+)\.")


@dataclass
class Task:
    """As much of a task as decides about the model."""

    head: str = "sequence"
    outputs: int = 2


@pytest.fixture
def parts(small: Small, tmp_path: Path) -> Callable[..., Parts]:
    """Take apart a model of a family as a method would."""

    def assembled(family: str, method: str, k: int, *overrides: str) -> Parts:
        path = tiny_checkpoint(tmp_path / family, family, layers=DEPTH)
        config = small(f"model.path={path}", "model.attention=eager", f"method={method}", f"cut={k}", *overrides)
        task: Any = Task()
        return assemble(config, k, task)

    return assembled


def trained(module: nn.Module) -> dict[str, int]:
    return {name: p.numel() for name, p in module.named_parameters() if p.requires_grad}


def trains(module: nn.Module) -> set[int]:
    return {id(p) for p in module.parameters() if p.requires_grad}


def by_layer(sizes: dict[str, int]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for name, size in sizes.items():
        found = LAYER.search(name)
        assert found, f"{name} belongs to no layer"
        counts[int(found[1])] += size
    return counts


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_alone_train_and_only_in_the_layers_above_the_cut(
    parts: Callable[..., Parts], family: str, kind: str
) -> None:
    if kind == "prefix" and family in NO_PREFIX:
        pytest.skip("refused: see below")
    options = [f"method.adapter.kind={kind}", "method.adapter.bottleneck=8"]
    for k in (1, 3):
        found = parts(family, "reduced_adapters", k, *options)
        sizes = trained(found.upper)
        assert sizes and all(is_adapter(name) for name in sizes)
        assert found.lower is not None and trains(found.lower) <= trains(found.upper)
        if kind in POOLED:  # what layers share lies in the first of them, or beside them
            assert min(by_layer({name: size for name, size in sizes.items() if LAYER.search(name)})) == k
        else:
            counts = by_layer(sizes)
            assert sorted(counts) == list(range(k, DEPTH))
            assert len(set(counts.values())) == 1, counts


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in NO_PREFIX])
def test_a_prefix_has_keys_and_values_for_each_layer_above_the_cut(parts: Callable[..., Parts], family: str) -> None:
    for k in (1, 3):
        found = parts(family, "reduced_adapters", k, "method.adapter.kind=prefix")
        (last,) = [p for name, p in found.upper.named_parameters() if name.endswith("control_trans.2.bias")]
        assert last.numel() == (DEPTH - k) * 2 * HIDDEN


@pytest.mark.parametrize("bottleneck", [1, 5, 8, 13, 31, 32])
@pytest.mark.parametrize("kind", BOTTLENECKS)
def test_a_bottleneck_has_the_width_that_was_asked_for(parts: Callable[..., Parts], kind: str, bottleneck: int) -> None:
    """In the paper's code a layer has two adapters of 2 x H x b + b + H parameters."""
    options = [f"method.adapter.kind={kind}", f"method.adapter.bottleneck={bottleneck}"]
    counts = by_layer(trained(parts("bert", "reduced_adapters", 2, *options).upper))
    each = 2 * HIDDEN * bottleneck + bottleneck + HIDDEN

    assert counts == {layer: each * (2 if kind == "double_seq_bn" else 1) for layer in (2, 3)}


@pytest.mark.parametrize("hidden", [384, 768, 1024, 1536])
def test_the_papers_adapters_have_the_papers_size(hidden: int) -> None:
    model = tiny("bert", hidden_size=hidden, layers=1)
    add_adapter(model, Adapter(), 0)

    assert sum(p.numel() for name, p in model.named_parameters() if is_adapter(name)) == 2 * (
        2 * hidden * 256 + hidden + 256
    )


@pytest.mark.parametrize("kind", [*BOTTLENECKS, "lora", "ia3"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_untrained_adapter_changes_nothing(family: str, kind: str) -> None:
    model = tiny(family)
    inputs = padded_batch(model.config)
    expected = model(**inputs).last_hidden_state
    add_adapter(model, Adapter(kind, 8), 1)

    torch.testing.assert_close(model.eval()(**inputs).last_hidden_state, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", BELOW)
def test_adapters_that_act_below_the_cut_are_refused_with_the_reason(parts: Callable[..., Parts], kind: str) -> None:
    with pytest.raises(UserError, match=rf"{kind} acts on the embeddings or on every layer.*cached"):
        parts("bert", "reduced_adapters", 2, f"method.adapter.kind={kind}")


@pytest.mark.parametrize(
    ("family", "k", "options", "says"),
    [
        ("mpnet", 2, ["method.adapter.kind=prefix"], "prefix is not to be had for mpnet"),
        ("modernbert", 2, ["method.adapter.kind=prefix"], "prefix is not to be had for modernbert"),
        ("bert", DEPTH, ["method.adapter.kind=prefix"], "no layer for an adapter.*method=probe"),
        ("bert", DEPTH, [], "no layer for an adapter.*method=probe"),
        ("bert", 2, ["method.adapter.kind=nothing"], "kind=nothing is unknown. Choose one of double_seq_bn"),
        ("bert", 2, ["method.adapter.bottleneck=0"], "bottleneck=0"),
        ("bert", 2, ["method.adapter.kind=compacter", "method.adapter.bottleneck=6"], "divisible by 4"),
    ],
)
def test_adapters_that_cannot_be_are_refused(
    parts: Callable[..., Parts], family: str, k: int, options: list[str], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        parts(family, "reduced_adapters", k, *options)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("t5", "t5+gated", "modernbert")])
def test_bitfit_trains_the_biases_above_the_cut(parts: Callable[..., Parts], family: str) -> None:
    for k in (1, 3):
        sizes = trained(parts(family, "bitfit", k).upper)
        assert all(name.endswith(".bias") for name in sizes)
        assert sorted(by_layer(sizes)) == list(range(k, DEPTH))


@pytest.mark.parametrize("family", ["t5", "t5+gated", "modernbert"])
def test_bitfit_without_biases_is_refused(parts: Callable[..., Parts], family: str) -> None:
    with pytest.raises(UserError, match=r"no biases above the cut.*method=probe"):
        parts(family, "bitfit", 2)


@pytest.mark.parametrize("head", ["linear", "stock"])
@pytest.mark.parametrize("method", ["bitfit", "probe", "reduced_adapters", "reduced"])
def test_the_head_always_trains(parts: Callable[..., Parts], method: str, head: str) -> None:
    found = parts(
        "bert", method, 3, f"method.head={head}", "method.adapter.bottleneck=8" if "ad" in method else "seed=0"
    )
    heads = found.head if head == "linear" else found.upper.get_submodule("model.classifier")

    assert all(parameter.requires_grad for parameter in heads.parameters())
