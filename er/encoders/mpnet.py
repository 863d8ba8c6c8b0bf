"""MPNet: one position bias, computed by the encoder and handed to every layer."""

from __future__ import annotations

from typing import Any, ClassVar

from er.encoders.bert import SMALL, Roberta


class MPNet(Roberta):
    """MPNet, with positions counted as in RoBERTa."""

    shared = ("encoder.relative_attention_bias",)
    samples: ClassVar[dict[str, dict[str, Any]]] = {"": SMALL}
