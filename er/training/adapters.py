"""The only file that touches the `adapters` library: where adapters go, and which weights are theirs."""

from __future__ import annotations

import importlib
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from er.config import Adapter
from er.errors import UserError

NAME = "er"

BOTTLENECKS = ("double_seq_bn", "seq_bn", "par_bn")
KINDS = {kind: kind for kind in (*BOTTLENECKS, "lora", "ia3", "compacter")} | {"prefix": "prefix_tuning"}
"""Our names, and those of the `adapters` library, of what can be put into some layers only."""

WIDE = (*BOTTLENECKS, "compacter")
"""What `bottleneck` is the width of; the other kinds come in the library's usual size."""

COMPACTER_UNIT = 4
"""A compacter's weights are sums of so many Kronecker products, so its widths are multiples of it."""

BELOW = ("prompt_tuning", "seq_bn_inv", "par_seq_bn_inv", "double_seq_bn_inv", "mam", "unipelt")
"""What changes the embeddings, or every layer: it would change what is cached."""


THEIRS = (".past_key_value. is deprecated", "To copy construct from a tensor")
"""What the library's own code is warned of in every forward pass of a T5 or an MPNet."""

NO_PREFIX = ("modernbert", "mpnet")
"""Families whose attention the `adapters` library cannot give a prefix."""


def add_adapter(model: Any, adapter: Adapter, k: int) -> None:
    """Put an untrained adapter into the layers of `model` from `k` on.

    Untrained, it changes nothing (bottlenecks, LoRA, IA3: what they add starts at zero), or little (compacter), or only
    adds something to look at (prefix). None is put below the cut, since it would change what is cached.
    """
    _check(model.config, adapter, k)
    config = _config(model.config, adapter, k)
    library = _library()
    family = model.config.model_type
    library.init(model, interface=INTERFACES[family](library, adapter) if family in INTERFACES else None)
    if family == "modernbert":
        _without_invented_bias(model)
    model.add_adapter(NAME, config=config, set_active=True)
    for message in THEIRS:
        warnings.filterwarnings("ignore", message=message)


def hub_class(model_type: str) -> Any:
    """Return the class of the `adapters` library whose heads are saved with an adapter, `None` for other families.

    T5's is none: its heads read the decoder.
    """
    mapping = _library().AutoAdapterModel._model_mapping
    kinds = (kind for kind in list(mapping.keys()) if kind.model_type == model_type != "t5")
    return next((mapping[kind] for kind in kinds), None)


def add_head(model: Any, reads: str, labels: list[str], layers: int, activation: str | None) -> list[Any]:
    """Put a head beside our adapter; return its linear layers, from below."""
    add = {"sequence": model.add_classification_head, "token": model.add_tagging_head, "span": model.add_qa_head}[reads]
    options = {"num_labels": len(labels), "layers": layers, "activation_function": activation}
    add(NAME, id2label=dict(enumerate(labels)), **options)
    return [layer for layer in model.heads[NAME] if hasattr(layer, "weight")]


def save(model: Any, folder: Path) -> None:
    """Write our adapter and the head beside it: one of the library's, or a model's own with what configures it."""
    model.save_adapter(str(folder), NAME, with_head=True)
    if hasattr(model, "heads"):
        return
    model.config.save_pretrained(folder)
    head = folder / _library().utils.HEAD_WEIGHTS_NAME  # of a T5, the library takes the encoder for a part of the head
    weights = torch.load(head, weights_only=True)
    torch.save({name: w for name, w in weights.items() if not name.startswith(f"{model.base_model_prefix}.")}, head)


def is_adapter(name: str) -> bool:
    """Tell whether a parameter of this name belongs to our adapter."""
    return f".{NAME}." in name


def _library() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import brings in every architecture there is, with their deprecations
        library = importlib.import_module("adapters")
    logging.getLogger("adapters").setLevel(logging.ERROR)  # it warns of inactive adapters while it adds one
    return library


def _check(model: Any, adapter: Adapter, k: int) -> None:
    if adapter.kind in BELOW:
        raise UserError(
            f"method.adapter.kind={adapter.kind} acts on the embeddings or on every layer, so what is cached below "
            f"the cut would change with every step. Choose one of {', '.join(KINDS)}."
        )
    if adapter.kind not in KINDS:
        raise UserError(f"method.adapter.kind={adapter.kind} is unknown. Choose one of {', '.join(KINDS)}.")
    if k >= model.num_hidden_layers:
        raise UserError(
            f"method.adapter.kind={adapter.kind}: above layer {k}, the last, there is no layer for an adapter. "
            "Lower the cut, or train the head alone with method=probe."
        )
    if adapter.kind == "prefix" and model.model_type in NO_PREFIX:
        raise UserError(
            f"method.adapter.kind=prefix is not to be had for {model.model_type} models. "
            f"Choose one of {', '.join(kind for kind in KINDS if kind != 'prefix')}."
        )
    unit = COMPACTER_UNIT if adapter.kind == "compacter" else 1
    if adapter.kind in WIDE and (adapter.bottleneck < 1 or adapter.bottleneck % unit or model.hidden_size % unit):
        raise UserError(
            f"method.adapter.bottleneck={adapter.bottleneck} in a model of width {model.hidden_size}: for "
            f"method.adapter.kind={adapter.kind} both must be divisible by {unit}, and at least that."
        )


def _config(model: Any, adapter: Adapter, k: int) -> Any:
    options: dict[str, Any] = {"leave_out": list(range(k))}
    if adapter.kind in WIDE:  # the library divides by the factor and rounds down
        options["reduction_factor"] = model.hidden_size / (adapter.bottleneck + 0.5)
    if adapter.kind in BOTTLENECKS:
        options |= {
            "non_linearity": "gelu_pytorch_tanh",  # the paper's gelu_new, in one kernel instead of eight
            "init_weights": "mam_adapter",  # zero up-projection
        }
    return _library().AdapterConfig.load(KINDS[adapter.kind], **options)


def _without_invented_bias(model: Any) -> None:
    """Take away the random bias that `adapters.init` gives every `Wqkv` of a ModernBERT that has none."""
    for module in model.modules():
        if type(module).__name__ == "LoRAMergedLinear":
            module.register_parameter("bias", None)


def _mpnet(library: ModuleType, adapter: Adapter) -> Any:
    """Describe MPNet's layers, which `adapters` does not know."""
    return library.AdapterModelInterface(
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


def _modernbert(library: ModuleType, adapter: Adapter) -> Any:
    """Describe ModernBERT's layers as `adapters` does; LoRA invents a bias, so it is left out where it is not used."""
    known = library.wrappers.interfaces.CUSTOM_INTERFACES["modernbert"]
    return replace(known, adapter_methods=["bottleneck" if adapter.kind in WIDE else "lora"])


INTERFACES = {"mpnet": _mpnet, "modernbert": _modernbert}
"""What describes the layers of a family to the library, which an adapter for it is saved with."""
