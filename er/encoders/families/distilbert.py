"""DistilBERT: BERT under other names."""

from __future__ import annotations

from typing import Any, ClassVar

from er.encoders.family import Family


class DistilBert(Family):
    """DistilBERT: half of BERT's layers, no token types, no pooler; takes no `position_ids`."""

    types: ClassVar[tuple[str, ...]] = ("distilbert",)
    layers = "transformer.layer"
    placeable = False
    samples: ClassVar[dict[str, dict[str, Any]]] = {
        "": {"vocab_size": 96, "dim": 32, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64}
    }
