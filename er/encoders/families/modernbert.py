"""ModernBERT: layers that look far and layers that look near, and a norm behind the last."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PretrainedConfig

from er.encoders.families.bert import SMALL
from er.encoders.family import Family


class ModernBert(Family):
    """ModernBERT; which layers look far goes by their index, which a cut does not change."""

    types: ClassVar[tuple[str, ...]] = ("modernbert",)
    layers = "layers"
    norm = "final_norm"
    samples: ClassVar[dict[str, dict[str, Any]]] = {
        "": {
            **SMALL,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "cls_token_id": 1,
            "sep_token_id": 2,
            "local_attention": 4,
            "global_attn_every_n_layers": 2,
            "reference_compile": False,
        }
    }

    def first_position(self, config: PretrainedConfig) -> None:
        """Positions are relative: there is no first."""
