"""A model can be cut after adapters were added to it, and the adapters of the upper part fit the whole model."""

from __future__ import annotations

import gc
import importlib
import warnings
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from er.encoders import Lower, fingerprint, split
from er.testing import FAMILIES, gradients, loss, padded_batch, same, tiny

pytestmark = pytest.mark.filterwarnings(
    "ignore:.past_key_value.:FutureWarning", "ignore:To copy construct from a tensor:UserWarning"
)

DEPTH = 3
KINDS: dict[str, dict[str, Any]] = {
    "double_seq_bn": {"reduction_factor": 4},
    "seq_bn": {"reduction_factor": 4},
    "par_bn": {"reduction_factor": 4},
    "compacter": {"reduction_factor": 4, "phm_dim": 2},
    "lora": {"r": 2},
    "ia3": {},
    "prefix_tuning": {"prefix_length": 3, "bottleneck_size": 8},
}
NO_PREFIX = ("modernbert", "mpnet")


@pytest.fixture(scope="module")
def adapters() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import brings in every architecture there is
        return importlib.import_module("adapters")


def adapted(
    adapters: ModuleType, family: str, k: int, kind: str = "double_seq_bn", head: str = "token"
) -> PreTrainedModel:
    """Return a tiny model with an adapter in the layers above `k`, which trains, with the head, and nothing else."""
    model = tiny(family, head)
    adapters.init(model, interface=_mpnet(adapters) if family == "mpnet" else None)
    for module in model.modules():
        if family == "modernbert" and type(module).__name__ == "LoRAMergedLinear":
            module.register_parameter("bias", None)  # a random one that `adapters.init` invents
    config = adapters.AdapterConfig.load(kind, leave_out=list(range(k)), **KINDS[kind])
    model.add_adapter("task", config=config)
    model.train_adapter("task")
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "task" in name:
            nn.init.normal_(parameter, std=0.1)
    return model.eval()


def _mpnet(adapters: ModuleType) -> Any:
    return adapters.AdapterModelInterface(
        adapter_methods=["bottleneck", "lora"],
        model_embeddings="embeddings",
        model_layers="encoder.layer",
        layer_self_attn="attention",
        layer_cross_attn=None,
        attn_q_proj="attn.q",
        attn_k_proj="attn.k",
        attn_v_proj="attn.v",
        attn_o_proj="attn.o",
        layer_intermediate_proj="intermediate.dense",
        layer_output_proj="output.dense",
        layer_pre_self_attn="attention",
        layer_pre_ffn="intermediate",
        layer_ln_1="attention.LayerNorm",
        layer_ln_2="output.LayerNorm",
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_above_the_cut_act_and_learn_as_in_the_whole_model(
    adapters: ModuleType, family: str, kind: str
) -> None:
    if kind == "prefix_tuning" and family in NO_PREFIX:
        pytest.skip("the adapters library has no prefix tuning for this family")
    model = adapted(adapters, family, 1, kind)
    inputs = padded_batch(model.config)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    expected, wanted = model(**inputs), gradients(model, model(**inputs))

    lower, upper = split(model, 1)
    found = gradients(model, upper(lower(**inputs), **inputs))

    plain = tiny(family, "token")
    assert same(upper(lower(**inputs), **inputs), expected)
    assert not same(expected, plain(**inputs))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trainable
    assert fingerprint(lower) == fingerprint(Lower(plain, 1)), "an adapter must find the cache of the plain model"


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_trained_above_the_cut_is_one_of_the_whole_model(
    adapters: ModuleType, family: str, tmp_path: Path
) -> None:
    model = adapted(adapters, family, 2)
    inputs = padded_batch(model.config)
    lower, upper = split(model, 2)
    activation = lower(**inputs)
    expected = train(upper, activation, inputs)
    upper.model.save_adapter(str(tmp_path), "task")

    fresh = adapted(adapters, family, 2)
    fresh.load_state_dict({n: t for n, t in upper.model.state_dict().items() if "classifier" in n}, strict=False)
    fresh.load_adapter(str(tmp_path), load_as="other", set_active=True)

    assert same(fresh.eval()(**inputs), expected)


def train(upper: nn.Module, activation: torch.Tensor, inputs: dict[str, torch.Tensor]) -> Any:
    """Take a few steps with dropout, and return what the upper part then gives in eval mode."""
    optimizer = torch.optim.AdamW([p for p in upper.parameters() if p.requires_grad], lr=1e-2)
    upper.train()
    for _ in range(3):
        optimizer.zero_grad()
        loss(upper(activation, **inputs)).backward()
        optimizer.step()
    return upper.eval()(activation, **inputs)


@pytest.mark.parametrize("family", ["bert", "deberta-v2+conv", "distilbert", "t5"])
def test_memory_below_the_cut_is_freed_with_adapters_too(adapters: ModuleType, family: str) -> None:
    model = adapted(adapters, family, 2)
    upper = split(model, 2)[1]
    kept = {id(p) for p in upper.parameters()}
    below = [weakref.ref(p) for p in model.parameters() if id(p) not in kept]

    del model
    gc.collect()

    assert below and all(reference() is None for reference in below)
