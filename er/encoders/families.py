"""The families that can be cut, by the `model_type` of their configuration.

A new one is a file that says what differs from BERT (`er.encoders.family`), with a tiny sample of it, and a line here:
the tests of every law then hold it to them.
"""

from __future__ import annotations

from transformers import PretrainedConfig

from er.encoders.bert import Bert, Electra, Roberta
from er.encoders.deberta_v2 import DebertaV2
from er.encoders.distilbert import DistilBert
from er.encoders.family import Family
from er.encoders.modernbert import ModernBert
from er.encoders.mpnet import MPNet
from er.encoders.t5 import T5
from er.errors import UserError

FAMILIES: dict[str, Family] = {
    "bert": Bert(),
    "deberta-v2": DebertaV2(),
    "distilbert": DistilBert(),
    "electra": Electra(),
    "modernbert": ModernBert(),
    "mpnet": MPNet(),
    "roberta": Roberta(),
    "t5": T5(),
    "xlm-roberta": Roberta(),
}


def family_of(model_type: str) -> Family:
    """Return how models of this type are cut."""
    if model_type not in FAMILIES:
        raise UserError(
            f"Models of type {model_type!r} cannot be cut: nothing is known about where their layers lie. "
            f"Choose a model of one of these types: {', '.join(FAMILIES)}."
        )
    return FAMILIES[model_type]


def depth(config: PretrainedConfig) -> int:
    """Return N, the number of encoder layers that a configuration asks for, no weights needed."""
    family_of(config.model_type)
    return int(config.num_hidden_layers)
