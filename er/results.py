"""The record of one run: what was run, what came out, what it cost."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from er.errors import UserError

NAME = "result.json"

FAILED = "failed.json"
"""What a run that failed leaves: its `error`, `command`, `traceback` and `config`, and the path of its `log`."""

BEGUN = "run.begun"
"""What a run that has begun leaves until it ends: its configuration, by which an interrupted one is completed."""

LOG = "log.txt"
"""What a run has logged, as long as it is not done."""

VERSION = 1
SCORES = ("accuracy", "macro_f1", "entity_f1", "em", "f1")
"""The scores that a summary shows, of those that a task has."""

MAIN = ("accuracy", "entity_f1", "f1")
"""The score by which runs are compared, the first of these that a task has."""

PACKAGES = ("er", "torch", "transformers", "adapters", "datasets", "pytorch-lightning")


@dataclass
class Result:
    """What `result.json` holds; W&B gets the same."""

    run_id: str
    identity: dict[str, Any]
    config: dict[str, Any]
    metrics: dict[str, float]
    seconds: dict[str, float]
    """By phase: build, read, train, evaluate."""
    steps: int
    cache: dict[str, Any] | None
    """Space digest, hits, misses, bytes, and `cost`: the seconds that building these entries took, whoever did."""
    split: dict[str, str]
    """For each split, whether it was given or derived."""
    parameters: dict[str, int]
    """How many the run held in memory while it trained, and how many it trained."""
    history: list[dict[str, float]]
    """The dev metrics of every epoch."""
    env: dict[str, Any] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    """The names of the head's outputs, in order."""
    tokens_s: dict[str, float] = field(default_factory=dict)
    """Tokens a second, padding not counted, while it trained, reading included, and while it evaluated."""
    memory: dict[str, int] = field(default_factory=dict)
    """The most bytes that the process held (`rss`) and allocated on its accelerator (`device`), from the build on."""
    depth: int | None = None
    """How many layers the encoder has."""
    offset: int | None = None
    """Where texts were encoded apart: the tokens that were kept free before the second."""
    version: int = VERSION


def score(metrics: dict[str, float], split: str) -> float:
    """Return the score of a split by which runs are compared; NaN where there is none."""
    return next((metrics[f"{split}/{name}"] for name in MAIN if f"{split}/{name}" in metrics), float("nan"))


def write(path: Path, result: Result) -> None:
    """Make `result.json` appear whole or not at all."""
    write_text(path, json.dumps(asdict(result), indent=2, ensure_ascii=False))


def write_text(path: Path, text: str) -> None:
    """Make a file of text appear whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Make a file appear whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(path: Path) -> Result:
    """Read a record; a file that is none is a `UserError` that names it."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(said, dict) and isinstance(said.get("version"), int) and said["version"] > VERSION:
            raise UserError(f"{path} was written by a newer er (format {said['version']}, not {VERSION}). Update er.")
        return Result(**said)
    except UserError:
        raise
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not a result of er ({error}). Delete it and run again.") from error


def environment(device: str) -> dict[str, Any]:
    """Describe where and when a run happened: times from different hardware are never divided by each other.

    `cpus` are those that compute: no more than this process has threads, of which launchers give each run its share.
    """
    import torch  # whoever computes has loaded it; who only reads records need not

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "device": device,
        "host": platform.node(),
        "machine": platform.machine(),
        "cpus": min(cpus, torch.get_num_threads()),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "commit": _commit(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    """Return the checkout's commit, or nothing for an installed package."""
    checkout = Path(__file__).resolve().parents[1]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
