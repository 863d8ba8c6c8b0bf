"""What a cache holds: its spaces, with what fills them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from er.cache.key import Space
from er.cache.segment import Segment
from er.cache.store import IDENTITY, SEGMENT
from er.errors import UserError


@dataclass(frozen=True)
class Listed:
    """One space, as it is listed."""

    directory: Path
    model: str
    """What the model was called by whoever filled the space first: a name, no identity."""
    space: Space
    hidden: int
    entries: int
    tokens: int
    bytes: int


def spaces(root: Path) -> list[Listed]:
    """List the spaces under `root`, by model, cut and dtype."""
    found = [_listed(path) for path in sorted(root.glob(f"*/{IDENTITY}"))]
    return sorted(found, key=lambda each: (each.model, each.space.cut_layer, each.space.storage_dtype))


def _listed(path: Path) -> Listed:
    try:
        said = json.loads(path.read_bytes())
        space, hidden, model = Space(**said["space"]), int(said["hidden"]), str(said["about"].get("model", "?"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is unreadable ({error}). Delete {path.parent}: it is rebuilt.") from error
    segments = [Segment.open(file) for file in path.parent.iterdir() if SEGMENT.fullmatch(file.name)]
    return Listed(
        path.parent,
        model,
        space,
        hidden,
        sum(len(segment.table.keys) for segment in segments),
        sum(segment.tokens for segment in segments),
        sum(segment.size for segment in segments),
    )
