"""Whether a record is one: of every part that a report reads, that it is what it is taken for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from er.choices import Precision
from er.results import Result

Number = (int, float)

PARTS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("model", "task", "method", "optim", "trainer"), dict),
    **dict.fromkeys(("model.name", "task.name", "task.kind", "method.name", "optim.name", "trainer.name"), str),
    "method.recycles": bool,
    "method.cut": Number,
    "cut": Number,
    "seed": Number,
}
"""What a report reads of a configuration."""

TEXTS = {"task", "data", "model", "method", "arm", "storage", "precision", "host", "device", "versions", "attention"}
TEXTS |= {"commit", "run_id"}
"""Columns of a run's row that hold text; all others hold numbers."""

PHASES = {"build", "read", "train", "evaluate"}


def result(found: Result) -> Result:
    """Return a result without the metrics that are null; a part that is not what it must be is a `TypeError`."""
    config(found.config)
    _expect("identity.method.head", found.identity["method"]["head"], str)
    _expect("history", found.history, list)
    if missing := PHASES - found.seconds.keys():
        raise KeyError(f"seconds.{min(missing)}")
    if not found.history or found.steps == 0:
        raise ValueError("no epoch in it")
    return replace(found, metrics={name: value for name, value in found.metrics.items() if value is not None})


def row(line: Mapping[str, Any]) -> None:
    """Refuse a row of which a column holds what the same column of other rows does not."""
    for name, value in line.items():
        _expect(name, value, str if name in TEXTS else Number)


def config(tree: Mapping[str, Any]) -> None:
    """Refuse a configuration that no run can have had."""
    for path, kind in PARTS.items():
        found: Any = tree
        for name in path.split("."):
            found = found[name]
        _expect(path, found, kind)
    Precision(tree["trainer"]["precision"])


def _expect(path: str, value: Any, kind: type | tuple[type, ...]) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{path} is {value!r}")
