"""Reads every run below a folder; what is no result of this version is left out, and named."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from er import results, tables
from er.errors import UserError
from er.reporting import benches, sound
from er.reporting.benches import Timed
from er.results import Result

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"

UNSOUND = (KeyError, TypeError, AttributeError, ValueError)
"""What comes of taking a foreign or damaged file for a record."""


@dataclass(frozen=True)
class Unfinished:
    """A run that was begun and has no result."""

    directory: Path
    error: str
    """What stopped it, where that is known."""
    command: str
    """What completes it, where the run has left that."""
    config: dict[str, Any] = field(default_factory=dict)
    """What it was asked for, where the run has left that."""


@dataclass
class Gathered:
    """All that lies below a runs folder."""

    folder: Path
    done: list[Result]
    """In the order of their tasks and models, finetune first."""
    table: pd.DataFrame
    """One row for each of `done`, in the same order."""
    skipped: dict[Path, str]
    """Files that are no result of this version, and why."""
    unfinished: list[Unfinished]
    timed: list[Timed] = field(default_factory=list)
    """What `er bench` has measured."""


def gather(folder: Path) -> Gathered:
    """Read all runs below `folder`; none at all is a `UserError`."""
    found = Gathered(folder, [], pd.DataFrame(), {}, [])
    read: list[tuple[Result, dict[str, Any]]] = []
    seen: dict[tuple[Any, ...], Path] = {}
    for directory in _run_folders(folder):
        path = directory / results.NAME
        if not path.exists():
            found.unfinished.append(unfinished(directory))
            continue
        try:
            result, line = _read(path)
        except UserError as error:
            found.skipped[path] = str(error)
            continue
        key = (result.run_id, *(line[name] for name in tables.HARDWARE))
        if key in seen:
            found.skipped[path] = f"{path} is a copy of {seen[key]}."
            continue
        seen[key] = path
        read.append((result, line))
    found.timed, unreadable = benches.read(folder)
    found.skipped |= unreadable
    for reason in found.skipped.values():
        log.warning("left out: %s", reason)
    read.sort(key=lambda each: _order(each[1]))
    found.done = [result for result, _ in read]
    if read:
        table = tables.with_differences(
            pd.DataFrame([line for _, line in read]), [each.identity for each in found.done]
        )
        found.table = tables.with_speedups(table)
    return found


def _order(line: dict[str, Any]) -> tuple[Any, ...]:
    """Put the runs of one task and model together, the baseline first."""
    alike = [line[name] for name in ("task", "model")]
    return *alike, line["method"] != "finetune", *(line[name] for name in (*tables.SETTING[2:-1], "seed"))


def finished(found: Gathered) -> Gathered:
    """Pass on what holds at least one finished run; otherwise say what is there instead."""
    if found.done:
        return found
    there = [f"{len(found.skipped)} left out"] * bool(found.skipped)
    there += [f"{len(found.unfinished)} unfinished: er report report.pending=true lists them"] * bool(found.unfinished)
    what = f" ({'; '.join(there)})" if there else ""
    raise UserError(f"{found.folder} holds no finished run{what}. Train one first (er train), or set paths.runs.")


def unfinished(directory: Path) -> Unfinished:
    """Describe a run without a result by what it has left."""
    path = directory / results.FAILED
    if not path.exists():
        return Unfinished(directory, "interrupted", "", _begun(directory / results.BEGUN))
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return Unfinished(directory, str(said["error"]), str(said.get("command") or ""))
    except (OSError, *UNSOUND) as error:
        return Unfinished(directory, f"failed; {path.name} cannot be read ({error})", "")


def _begun(path: Path) -> dict[str, Any]:
    """Return the configuration that a run has left for as long as it is not done, or nothing."""
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        sound.config(config)
    except (OSError, *UNSOUND):
        return {}
    return config


def _run_folders(folder: Path) -> Iterator[Path]:
    """Yield each folder in which a run ended or was begun, in order."""
    for path, folders, files in os.walk(folder):
        begun = CHECKPOINTS in folders or {results.LOG, results.BEGUN} & set(files)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != CHECKPOINTS)
        if begun or results.NAME in files or results.FAILED in files:
            yield Path(path)


def _read(path: Path) -> tuple[Result, dict[str, Any]]:
    """Return a result and its row."""
    result = results.read(path)
    if result.version != results.VERSION:
        raise UserError(f"{path} has format {result.version}, this er reads {results.VERSION}. Run it again.")
    try:
        result = sound.result(result)
        line = tables.row(result)
        sound.row(line)
        finished = str(result.env.get("finished") or _modified(path))
    except UNSOUND as error:
        raise UserError(f"{path} is not a result of er ({error!r}). Delete it and run again.") from error
    scores = [name for name in results.MAIN if name in line]
    extra = {
        "score": 100 * line[scores[0]] if scores else float("nan"),
        "scored": scores[0] if scores else "",
        "finished": finished,
        "directory": str(path.parent),
    }
    return result, line | extra


def _modified(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
