"""An output file on its way: it appears whole or not at all, and what a kill leaves of it is gone on with."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from er import results
from er.errors import UserError

log = logging.getLogger(__name__)


class Unfinished:
    """A file that grows, and a note beside it of how far it is good: `done` counts what is in it."""

    def __init__(self, file: IO[str], note: Path, told: Any) -> None:
        self.file = file
        self.done: dict[str, int] = {}
        self._note = note
        self._told = told
        self._resume()

    def write(self, line: str) -> None:
        """Append a line, for which `keep` has not vouched yet."""
        self.file.write(line)

    def keep(self, done: Mapping[str, int]) -> None:
        """Note that what was written until now is good, and what it is."""
        self.file.flush()
        self.done = dict(done)
        said = {"told": self._told, "bytes": os.fstat(self.file.fileno()).st_size, "done": self.done}
        results.write_text(self._note, json.dumps(said))

    def _resume(self) -> None:
        end, size = 0, os.fstat(self.file.fileno()).st_size
        with suppress(OSError, ValueError, LookupError, TypeError):
            said = json.loads(self._note.read_bytes())
            if said["told"] == self._told and 0 < said["bytes"] <= size:
                end, self.done = said["bytes"], said["done"]
        self.file.truncate(end)


@contextmanager
def unfinished(path: Path, told: Any) -> Iterator[Unfinished]:
    """Write `path`; what another call, told the same, left of it when it was killed is gone on with.

    `told` is all that the contents depend on, as JSON holds it. A mistake of the user's leaves nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part, note = (path.with_name(f".{path.name}{end}") for end in (".part", ".part.json"))
    with part.open("a", encoding="utf-8") as file:
        _claim(file, part)
        try:
            yield Unfinished(file, note, told)
        except UserError:
            part.unlink()
            note.unlink(missing_ok=True)
            raise
        file.flush()
        os.fsync(file.fileno())
        part.replace(path)
        note.unlink(missing_ok=True)


def _claim(file: IO[str], part: Path) -> None:
    """Make sure that nobody else writes this file; the lock goes when the file is closed, or its writer killed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), part.stat()):  # else it has just been finished by another
            return
    except (BlockingIOError, FileNotFoundError):
        pass
    raise UserError(f"{part} is being written by another er predict. Wait for it, or choose another output.")
