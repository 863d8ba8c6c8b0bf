"""Which segments a space should have: one line for each that came, and one for each that was dropped on purpose.

Nothing is read from here but by `verify`, which names what was lost. To everyone else the segments that are there are
the cache, and a lost one is a miss that the next run rebuilds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from er.cache.layout import SUFFIX
from er.cache.publish import publish

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


def wrong(directory: Path) -> list[str]:
    """What is wrong with the manifest itself, a line each: what no writer has written."""
    bad = sum(bool(line) and not _LINE.fullmatch(line) for line in _lines(directory))
    return [f"{directory / MANIFEST} is damaged: {bad} of its lines cannot be read."] if bad else []


def unlisted(directory: Path, segments: Iterable[Path]) -> list[Path]:
    """Those of these segments that the manifest does not know: it was cut short, or their builder was killed."""
    known = _expected(directory)
    return [path for path in segments if path.name not in known]


def renew(directory: Path, segments: Iterable[Path]) -> None:
    """Write the manifest anew, of these segments; the directory's lock must be held."""
    publish(directory / MANIFEST, [f"\n+ {path.name}".encode() for path in segments])


def _expected(directory: Path) -> set[str]:
    found = [_LINE.fullmatch(line) for line in _lines(directory)]
    signs = {line[2]: line[1] for line in found if line}  # the last word counts
    return {name for name, sign in signs.items() if sign == "+"}


def _lines(directory: Path) -> list[str]:
    try:
        return (directory / MANIFEST).read_bytes().decode("ascii", "replace").split("\n")
    except FileNotFoundError:
        return []


def _append(segment: Path, sign: str, durable: bool) -> None:
    handle = os.open(segment.parent / MANIFEST, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(handle, f"\n{sign} {segment.name}".encode())  # on a new line, whatever was cut off before
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)
