"""Embedding recycling: run the lower layers of a language model once, train and predict from the cache.

`load_run` finds a finished run again, `predict` has it answer new texts, `split` cuts a model in two, and
`ActivationCache` holds the activations of one space.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from er.cache import ActivationCache
    from er.encoders import split
    from er.serving.predict import predict
    from er.serving.trained import load_run

__all__ = ["ActivationCache", "load_run", "predict", "split"]

HOMES = {
    "ActivationCache": "er.cache",
    "load_run": "er.serving.trained",
    "predict": "er.serving.predict",
    "split": "er.encoders",
}
"""Where each name is defined: its module is imported when the name is first used, and `er --help` needs none."""


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'er' has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
