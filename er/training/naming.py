"""Which run a configuration asks for: its cut, checked against the model, and what names it."""

from __future__ import annotations

from typing import Any

from er import checks, identity
from er.config import Config
from er.training import cross_model


def named(config: Config, depth: int, sources: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Return the cut layer and the identity of a run; `sources` holds the digests of the model and the task."""
    k = checks.cut_layer(config.method.cut, depth)
    checks.check_cut(config, k)
    checks.check_meeting(config, k, depth)
    named = identity.identity(config, k, sources)
    if config.method.source is not None:
        named["source"] = cross_model.named(config.method.source)
    return k, named
