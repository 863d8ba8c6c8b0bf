"""Which segments a space should have: one line for each that came, and one for each that was dropped on purpose.

Nothing is read from here but by `verify`, which names what was lost. To everyone else the segments that are there are
the cache, and a lost one is a miss that the next run rebuilds.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from er.cache.layout import SUFFIX

MANIFEST = "manifest"

_LINE = re.compile(rf"([+-]) ([0-9a-f]{{32}}{re.escape(SUFFIX)})")


def add(segment: Path) -> None:
    """Note a segment, after it was published: a kill in between leaves one that is there and not expected."""
    _append(segment, "+", durable=False)


def drop(segment: Path) -> None:
    """Delete a segment; noted before, and for good, so that it is never missed."""
    _append(segment, "-", durable=True)
    segment.unlink(missing_ok=True)


def lost(directory: Path) -> list[Path]:
    """The segments that were published here, never dropped, and are gone."""
    gone = {name for name in _expected(directory) if not (directory / name).exists()}
    return [directory / name for name in sorted(gone & _expected(directory))]  # not those dropped while we looked


def _expected(directory: Path) -> set[str]:
    try:
        lines = (directory / MANIFEST).read_text("ascii", "replace").splitlines()
    except FileNotFoundError:
        return set()
    signs = {found[2]: found[1] for line in lines if (found := _LINE.fullmatch(line))}  # the last word counts
    return {name for name, sign in signs.items() if sign == "+"}


def _append(segment: Path, sign: str, durable: bool) -> None:
    handle = os.open(segment.parent / MANIFEST, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(handle, f"\n{sign} {segment.name}".encode())  # on a new line, whatever was cut off before
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)
