"""DeBERTa v2 and v3: relative positions that all layers read, and, in v2, a convolution behind layer 0."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PretrainedConfig

from er.encoders.families.bert import SMALL
from er.encoders.family import Family, Parts
from er.encoders.parts import Entry, PassOn

RELATIVE = {
    **SMALL,
    "type_vocab_size": 0,
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "attention_head_size": 8,
}


class PassOnPair(PassOn):
    """A DeBERTa layer returns two things: the second one, attentions, is not there."""

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> tuple[Any, ...]:
        """Return `hidden` and no attentions."""
        return hidden, None


class NoConvolution(nn.Module):
    """Stands for the convolution on the other side of the cut."""

    def forward(self, hidden: Tensor, residual: Tensor, mask: Tensor) -> Tensor:
        """Return what layer 0 returned."""
        return residual


class DebertaV2(Family):
    """DeBERTa v2 and v3; the convolution adds to layer 0 what it reads from the embeddings, so it goes with layer 0."""

    types: ClassVar[tuple[str, ...]] = ("deberta-v2",)
    shared = ("encoder.rel_embeddings", "encoder.LayerNorm")
    pass_on = PassOnPair
    samples: ClassVar[dict[str, dict[str, Any]]] = {
        "": RELATIVE,
        "conv": {**RELATIVE, "conv_kernel_size": 3, "conv_act": "gelu"},
    }

    def first_position(self, config: PretrainedConfig) -> int | None:
        """Return 0 only where positions are added to the embeddings, too, which neither v2 nor v3 does as published."""
        return 0 if config.position_biased_input else None

    def below(self, encoder: nn.Module, k: int, depth: int) -> Parts:
        """End before the convolution where layer 0 is not below the cut."""
        return super().below(encoder, k, depth) | self._convolution(encoder, runs=k > 0)

    def above(self, encoder: nn.Module, k: int, depth: int, entry: Entry) -> Parts:
        """Begin behind the convolution where layer 0 is below the cut."""
        return super().above(encoder, k, depth, entry) | self._convolution(encoder, runs=k == 0)

    def _convolution(self, encoder: nn.Module, runs: bool) -> Parts:
        has_one = encoder.get_submodule("encoder")._modules.get("conv") is not None
        return {"encoder.conv": NoConvolution()} if has_one and not runs else {}
