"""MPNet: one position bias, computed by the encoder and handed to every layer."""

from __future__ import annotations

from typing import Any, ClassVar

from er.encoders.families.bert import SMALL, Roberta


class MPNet(Roberta):
    """MPNet, with positions counted as in RoBERTa."""

    types: ClassVar[tuple[str, ...]] = ("mpnet",)
    shared = ("encoder.relative_attention_bias",)
    samples: ClassVar[dict[str, dict[str, Any]]] = {"": SMALL}
