"""The laws of the fingerprint: what must change it, and what must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from er.config import Model
from er.encoders import Lower, digest, family_of, fingerprint, load_model, split
from er.encoders.stored import PLACE
from er.testing import FAMILIES, padded_batch, tiny, tiny_checkpoint

DEPTH = 3
CUTS = range(DEPTH + 1)


def of(model: PreTrainedModel, k: int) -> str:
    return fingerprint(Lower(model, k))


@pytest.mark.parametrize("k", CUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_weight_that_can_change_the_activation_changes_it_and_no_other_does(family: str, k: int) -> None:
    model = tiny(family, "sequence")
    inputs = padded_batch(model.config)
    lower = Lower(model, k)
    before, activation = fingerprint(lower), lower(**inputs)
    below = {tensor.data_ptr() for _, tensor in lower.tensors()}
    for name, parameter in model.named_parameters():
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.add_(torch.linspace(0, 1, parameter.numel()).view_as(parameter))
        changed, moved = fingerprint(lower) != before, not torch.equal(lower(**inputs), activation)
        assert changed or not moved, name
        assert changed == (parameter.data_ptr() in below), name
        with torch.no_grad():
            parameter.copy_(kept)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_layer_changes_it_only_above_its_cut(family: str) -> None:
    before = [of(tiny(family), k) for k in CUTS]
    assert len(set(before)) == len(before)

    for layer in range(DEPTH):
        model = tiny(family)
        parts = family_of(model.config.model_type)
        weights = list(parts.encoder(model).get_submodule(f"{parts.layers}.{layer}").parameters())
        with torch.no_grad():
            weights[-1].view(-1)[0].add_(1e-3)
        changed = [of(model, k) != before[k] for k in CUTS]
        assert changed == [k > layer for k in CUTS]


@pytest.mark.parametrize("head", ["sequence", "token", "qa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_head_and_depth_do_not_change_it(family: str, head: str) -> None:
    bare, other = tiny(family, layers=DEPTH), tiny(family, head, layers=DEPTH - 1)
    other.base_model.load_state_dict(bare.state_dict(), strict=False)

    assert of(other, 1) == of(bare, 1)


@pytest.mark.parametrize(
    "fields", [{"hidden_dropout_prob": 0.3}, {"id2label": {0: "no", 1: "yes"}}, {"use_cache": False}]
)
def test_fields_without_a_say_do_not_change_it(fields: dict[str, Any]) -> None:
    assert of(tiny("bert", **fields), 2) == of(tiny("bert"), 2)


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("bert", {"layer_norm_eps": 1e-6}),
        ("bert", {"hidden_act": "relu"}),
        ("bert", {"num_attention_heads": 2}),
        ("bert", {"is_decoder": True}),
        ("bert", {"a_field_of_tomorrow": 1}),
        ("roberta", {"pad_token_id": 2}),
        ("deberta-v2", {"position_buckets": -1, "max_relative_positions": 8}),
        ("t5", {"relative_attention_max_distance": 7}),
        ("modernbert", {"local_attention": 8}),
        ("modernbert", {"global_rope_theta": 1000.0}),
    ],
)
def test_fields_with_a_say_change_it(family: str, fields: dict[str, Any]) -> None:
    assert of(tiny(family, **fields), 2) != of(tiny(family), 2)


def test_it_stays_what_it_was() -> None:
    """Caches on disk are named by it: change this number only together with the cache's format version."""
    tensors = [("a", torch.arange(6.0).view(2, 3)), ("b", torch.tensor(1, dtype=torch.int64))]

    assert digest(tensors, {"eps": 1e-12}) == "60ccbb3496b89a21c9409903c010fab8"


def test_names_shapes_and_dtypes_count() -> None:
    zeros = torch.zeros(4)
    variants = [("a", zeros), ("b", zeros), ("a", zeros.view(2, 2)), ("a", zeros.half()), ("a", zeros.bfloat16())]

    assert len({digest([variant], {}) for variant in variants}) == len(variants)


def test_attention_and_mode_do_not_change_it() -> None:
    eager, sdpa = tiny("bert"), tiny("bert", attention="sdpa").train()

    assert of(eager, 2) == of(sdpa, 2)


def test_training_the_upper_part_does_not_change_it() -> None:
    model = tiny("deberta-v2+conv", "token")
    lower, upper = split(model, 2)
    before = fingerprint(lower)
    optimizer = torch.optim.SGD([p for p in upper.parameters() if p.requires_grad], lr=1.0)
    inputs = padded_batch(model.config)

    upper(lower(**inputs), **inputs).logits.sum().backward()
    optimizer.step()

    assert fingerprint(lower) == before


@pytest.mark.parametrize("head", [None, "sequence"])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_can_be_taken_from_the_files_without_touching_the_weights(
    family: str, head: str | None, tmp_path: Path
) -> None:
    """Every weight of the lower part is found in its file; only what is computed, not loaded, is read in memory."""
    path = tiny_checkpoint(tmp_path, family, head)
    lower = Lower(load_model(Model(name="test", path=str(path), attention="eager")), 2)
    named = dict(lower.tensors())

    assert all(PLACE in vars(tensor) for tensor in named.values() if isinstance(tensor, torch.nn.Parameter))
    expected = fingerprint(lower)
    for tensor in named.values():
        if PLACE in vars(tensor):
            tensor.data.zero_()  # behind the back of its version counter
    assert fingerprint(lower, stored=True) == expected != fingerprint(lower)


def test_a_weight_that_was_changed_since_it_was_loaded_is_not_taken_from_its_file(tmp_path: Path) -> None:
    lower = Lower(load_model(Model(name="test", path=str(tiny_checkpoint(tmp_path)))), 2)
    before = fingerprint(lower, stored=True)
    with torch.no_grad():
        next(lower.parameters()).add_(1)

    assert fingerprint(lower, stored=True) == fingerprint(lower) != before
