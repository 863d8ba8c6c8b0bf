"""Encoders: loading them, cutting them in two, and knowing which lower part made an activation."""

from er.encoders.cut import Between, Lower, Upper, split
from er.encoders.families import depth, family_of, first_position
from er.encoders.fingerprint import digest, fingerprint, numerics
from er.encoders.load import load_config, load_model, load_tokenizer
from er.encoders.parts import sharing
from er.encoders.source import source

__all__ = [
    "Between",
    "Lower",
    "Upper",
    "depth",
    "digest",
    "family_of",
    "fingerprint",
    "first_position",
    "load_config",
    "load_model",
    "load_tokenizer",
    "numerics",
    "sharing",
    "source",
    "split",
]
