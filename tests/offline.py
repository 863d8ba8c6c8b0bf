"""What W&B has put into the file of a run that was not sent: the records of its log, and what they come to."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32768
HEADER = 7
"""Bytes before the first record of a .wandb file, and before each fragment of a record: LevelDB's log format."""


@dataclass
class Sent:
    """A W&B run, as its file has it."""

    id: str = ""
    group: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, list[str]] = field(default_factory=dict)
    """The files of each artifact, by its type."""
    exit_code: int | None = None


def sent(path: Path, patience: float = 60) -> Sent:
    """Read a `.wandb` file; W&B's service may still be writing its end when the run has finished."""
    until = time.monotonic() + patience
    while (found := _read(path)).exit_code is None and time.monotonic() < until:
        time.sleep(0.1)
    return found


def _read(path: Path) -> Sent:
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    found = Sent()
    for raw in _records(path):
        record = Record()
        record.ParseFromString(raw)
        if record.HasField("run"):
            found.id, found.group = record.run.run_id, record.run.run_group
        if record.HasField("exit"):
            found.exit_code = record.exit.exit_code
        for item in [*record.run.config.update, *record.config.update]:
            found.config[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        for item in record.summary.update:
            found.summary[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        artifact = record.request.log_artifact.artifact if record.HasField("request") else record.artifact
        if artifact.name:
            found.artifacts[artifact.type] = [entry.path for entry in artifact.manifest.contents]
    return found


def _records(path: Path) -> Iterator[bytes]:
    data, at, record = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last fragment
            yield record
            record = b""
