"""ModernBERT: layers that look far and layers that look near, and a norm behind the last."""

from __future__ import annotations

from typing import Any, ClassVar

from er.encoders.bert import SMALL
from er.encoders.family import Family


class ModernBert(Family):
    """ModernBERT; which layers look far goes by their index, which a cut does not change."""

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
