"""What `er bench` has measured: its records below the runs, and what each says of recycling."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from er import speed

FOLDER = "bench"
"""Below the runs."""


@dataclass(frozen=True)
class Timed:
    """One model, method and cut, training or inference."""

    model: str
    task: str
    method: str
    k: int
    depth: int
    mode: str
    kept: str
    """The precision, and the type of what is stored, as far as they are recorded."""
    over: dict[str, float]
    """By how many percent recycling is faster than each arm that recycles nothing, with the cache there."""
    build: float
    """Seconds that building the cache takes for 1,000 inputs."""
    hardware: str


def read(folder: Path) -> tuple[list[Timed], dict[Path, str]]:
    """Return what was measured, in the order of the files' names, and why which of them are left out."""
    found: list[Timed] = []
    skipped: dict[Path, str] = {}
    for path in sorted((folder / FOLDER).glob("*.json")):
        try:
            found += _timed(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            skipped[path] = f"{path} is not a record of er bench ({error!r}). Delete it and run it again."
    return found, skipped


def _timed(record: dict[str, Any]) -> list[Timed]:
    """Return each mode of one record."""
    model, task, method = (_checked(record[name], str) for name in ("model", "task", "method"))
    k, depth = (_checked(record[name], int) for name in ("k", "depth"))
    env, cost = record["env"], speed.cost(record)
    hardware = f"{env['device']}, {env['cpus']} CPU cores, on {env['host']}"
    kept = ", ".join(str(record[name]) for name in ("precision", "storage") if record.get(name))
    seconds = {mode: record[mode]["seconds"] for mode in speed.MODES}
    return [
        Timed(model, task, method, k, depth, mode, kept, _over(seconds[mode]), cost, hardware)
        for mode in speed.MODES
        if "recycled" in seconds[mode]
    ]


def _over(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {base: (speed.ratio(seconds, base, "recycled") - 1) * 100 for base in speed.BASES if base in seconds}


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
