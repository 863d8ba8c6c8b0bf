"""T5: its encoder is cut, the decoder stays whole; one position bias, from a table in block 0, serves all blocks."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, T5EncoderModel

from er.encoders.family import Family, Parts
from er.encoders.parts import Entry, PassOn, exchanged, skeleton

SMALL = {
    "vocab_size": 96,
    "d_model": 32,
    "d_kv": 8,
    "num_heads": 4,
    "d_ff": 48,
    "num_decoder_layers": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 6,
    "decoder_start_token_id": 0,
}


class PassOnBias(PassOn):
    """A T5 block hands on the position bias, too."""

    def forward(
        self, hidden: Tensor, mask: Any = None, position_bias: Any = None, *_: Any, **__: Any
    ) -> tuple[Any, ...]:
        """Return `hidden` and the bias as they came."""
        return hidden, position_bias


class BiasOnly(PassOn):
    """Stands for block 0 in the upper part: of its work only the position bias is left, with the table's own name."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        attention = skeleton(block.get_submodule("layer.0.SelfAttention"))
        attention._modules = {"relative_attention_bias": attention._modules["relative_attention_bias"]}
        self.layer = nn.ModuleList([nn.ModuleDict({"SelfAttention": attention})])

    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any) -> tuple[Any, ...]:
        """Return `hidden` and the bias of its positions, the mask added, as block 0 would."""
        attention: Any = self.get_submodule("layer.0.SelfAttention")
        length = hidden.shape[1]
        bias = attention.compute_bias(length, length, device=hidden.device)
        return hidden, bias if attention_mask is None else bias + attention_mask[..., :length]


class DropoutAfter(nn.Module):
    """The stack's one dropout, which serves embeddings and output: the activation is past the first of these."""

    def __init__(self, dropout: nn.Module, entry: Entry) -> None:
        super().__init__()
        self.dropout, self.entry = dropout, entry

    def forward(self, hidden: Tensor) -> Tensor:
        """Leave the very tensor that entered as it is, drop out from any other."""
        return hidden if hidden is self.entry.hidden else self.dropout(hidden)


class Normed(nn.Module):
    """Stands for the final norm where it is below the cut."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Return `hidden` as another tensor, so that the dropout behind it does not take it for the entry."""
        return hidden.view_as(hidden)


class T5(Family):
    """T5, whichever of its classes: all keep the encoder in a stack of its own."""

    types: ClassVar[tuple[str, ...]] = ("t5",)
    layers = "block"
    embeddings = "embed_tokens"
    norm = "final_layer_norm"
    bare = T5EncoderModel
    pass_on = PassOnBias
    samples: ClassVar[dict[str, dict[str, Any]]] = {
        "": SMALL,
        "gated": {**SMALL, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    }

    def path(self, model: PreTrainedModel) -> str:
        """Return where the encoder's stack lies."""
        return next(name for name in ("encoder", "transformer.encoder") if _has(model, name))

    def positions(self, config: PretrainedConfig) -> None:
        """Positions are relative: any length goes."""

    def first_position(self, config: PretrainedConfig) -> None:
        """Positions are relative: there is no first."""

    def above(self, encoder: nn.Module, k: int, depth: int, entry: Entry) -> Parts:
        """Recompute the bias, which belongs to the frozen block 0, and spare the activation a second dropout."""
        parts = super().above(encoder, k, depth, entry)
        parts["dropout"] = DropoutAfter(encoder.get_submodule("dropout"), entry)
        if k > 0:
            parts["block.0"] = BiasOnly(encoder.get_submodule("block.0"))
        if k == depth:
            parts["final_layer_norm"] = Normed()
        return parts

    def upper(self, model: PreTrainedModel, k: int, entry: Entry) -> nn.Module:
        """Let go of the embeddings' second name as well, unless a decoder reads them."""
        whole = super().upper(model, k, entry)
        owner = self.path(model).removesuffix("encoder")
        return whole if _has(model, f"{owner}decoder") else exchanged(whole, {f"{owner}shared": entry})


def _has(model: nn.Module, path: str) -> bool:
    return path in dict(model.named_modules())
