"""What sweeps were asked for: each leaves a list of its runs, by which those that never began are known, too."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from er import results
from er.errors import UserError

log = logging.getLogger(__name__)

FOLDER = ".sweeps"
"""Below the runs. To delete it is to forget what was asked for, and nothing else."""


@dataclass(frozen=True)
class Asked:
    """A run of a sweep."""

    directory: str
    """Below the runs."""
    task: str
    model: str
    method: str
    cut: str
    seed: str
    command: str


def leave(runs: Path, asked: list[Asked]) -> None:
    """Write down the runs of a sweep; to issue it again changes nothing."""
    text = json.dumps([asdict(each) for each in asked], indent=2, ensure_ascii=False)
    digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    try:
        results.write_text(runs / FOLDER / f"{digest}.json", text)
    except OSError as error:
        raise UserError(f"Cannot write to {runs}: {error.strerror}. Set paths.runs elsewhere.") from error


def read(runs: Path) -> list[Asked]:
    """Return the runs of all sweeps that were ever begun here, each once."""
    found: dict[str, Asked] = {}
    for path in sorted((runs / FOLDER).glob("*.json")):
        try:
            for each in json.loads(path.read_text(encoding="utf-8")):
                found.setdefault(each["directory"], Asked(**each))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("left out: %s is not the list of a sweep (%s). Delete it.", path, error)
    return list(found.values())
