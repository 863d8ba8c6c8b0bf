"""The only file that touches the `adapters` library: where adapters go, and which weights are theirs."""

from __future__ import annotations

import importlib
import logging
import warnings
from types import ModuleType
from typing import Any

from er.config import Adapter
from er.errors import UserError

NAME = "er"

BOTTLENECKS = ("double_seq_bn", "seq_bn", "par_bn")
KINDS = {kind: kind for kind in (*BOTTLENECKS, "lora", "ia3", "compacter")} | {"prefix": "prefix_tuning"}
"""Our names, and those of the `adapters` library, of what can be put into some layers only."""

BELOW = ("prompt_tuning", "seq_bn_inv", "par_seq_bn_inv", "double_seq_bn_inv", "mam", "unipelt")
"""What changes the embeddings, or every layer: it would change what is cached."""


def add_adapter(model: Any, adapter: Adapter, k: int) -> None:
    """Put an untrained adapter into the layers of `model` from `k` on.

    Its up-projection starts at zero: an untrained adapter changes nothing. None is put below the cut,
    since it would change what is cached.
    """
    config = _config(model.config, adapter, k)
    library = _library()
    family = model.config.model_type
    library.init(model, interface=_mpnet(library) if family == "mpnet" else None)
    if family == "modernbert":
        _without_invented_bias(model)
    model.add_adapter(NAME, config=config, set_active=True)


def is_adapter(name: str) -> bool:
    """Tell whether a parameter of this name belongs to our adapter."""
    return f".{NAME}." in name


def _library() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import brings in every architecture there is, with their deprecations
        library = importlib.import_module("adapters")
    logging.getLogger("adapters").setLevel(logging.ERROR)  # it warns of inactive adapters while it adds one
    return library


def _config(model: Any, adapter: Adapter, k: int) -> Any:
    if adapter.kind in BELOW:
        raise UserError(
            f"method.adapter.kind={adapter.kind} acts on the embeddings or on every layer, so what is cached below "
            f"the cut would change with every step. Choose one of {', '.join(KINDS)}."
        )
    if adapter.kind not in KINDS:
        raise UserError(f"method.adapter.kind={adapter.kind} is unknown. Choose one of {', '.join(KINDS)}.")
    options: dict[str, Any] = {"leave_out": list(range(k))}
    if adapter.kind in BOTTLENECKS:
        options |= {
            "reduction_factor": model.hidden_size / adapter.bottleneck,
            "non_linearity": "gelu_new",  # the paper's adapters use it
            "init_weights": "mam_adapter",  # zero up-projection
        }
    return _library().AdapterConfig.load(KINDS[adapter.kind], **options)


def _without_invented_bias(model: Any) -> None:
    """Take away the random bias that `adapters.init` gives every `Wqkv` of a ModernBERT that has none."""
    for module in model.modules():
        if type(module).__name__ == "LoRAMergedLinear":
            module.register_parameter("bias", None)


def _mpnet(library: ModuleType) -> Any:
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
