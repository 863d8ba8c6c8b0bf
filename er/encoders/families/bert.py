"""BERT and the families laid out like it: RoBERTa, XLM-R, ELECTRA."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn
from transformers import PretrainedConfig

from er.encoders.family import Family, Parts
from er.encoders.parts import Entry

SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 66,
}


class Bert(Family):
    """BERT; MiniLM and SciBERT are BERTs too."""

    types: ClassVar[tuple[str, ...]] = ("bert",)
    samples: ClassVar[dict[str, dict[str, Any]]] = {"": SMALL}


class Roberta(Family):
    """RoBERTa and XLM-R: positions are counted from the padding id on."""

    types: ClassVar[tuple[str, ...]] = ("roberta", "xlm-roberta")
    samples: ClassVar[dict[str, dict[str, Any]]] = {"": {**SMALL, "type_vocab_size": 1}}

    def positions(self, config: PretrainedConfig) -> int:
        """Return the longest input: the position table begins with rows that no token uses."""
        return int(config.max_position_embeddings - self.first_position(config))

    def first_position(self, config: PretrainedConfig) -> int:
        """Return the position behind the padding's."""
        return int(config.pad_token_id) + 1


class Electra(Family):
    """ELECTRA: small embeddings may be projected to the width of the layers."""

    types: ClassVar[tuple[str, ...]] = ("electra",)
    samples: ClassVar[dict[str, dict[str, Any]]] = {
        "": {**SMALL, "embedding_size": 32},
        "projected": {**SMALL, "embedding_size": 16},
    }

    def above(self, encoder: nn.Module, k: int, depth: int, entry: Entry) -> Parts:
        """Leave out the projection, too: the activation is behind it."""
        parts = super().above(encoder, k, depth, entry)
        if "embeddings_project" in encoder._modules:
            parts["embeddings_project"] = nn.Identity()
        return parts
