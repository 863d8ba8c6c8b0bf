"""Who uses a space, and when it was last used: a marker beside the segments, locked as long as somebody reads."""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

MARKER = "used"
RESOLUTION = 3600
"""Seconds for which a mark is good enough: opening a space again within an hour writes nothing."""


class Use:
    """A process's word that it uses a space: the kernel takes it back when this object or the process ends."""

    def __init__(self, directory: Path, handle: int) -> None:
        self.directory = directory
        weakref.finalize(self, os.close, handle)

    def __reduce__(self) -> tuple[Callable[[Path], Use | None], tuple[Path]]:
        """Another process gives its own word."""
        return use, (self.directory,)


def use(directory: Path) -> Use | None:
    """Say that this process uses a space from now on, and note the time.

    It waits for no builder: only a pruner, which deletes nothing that is in use, takes this lock for itself. Where
    the marker cannot be had (no such space yet, no permission, no locks), the space is used without saying so.
    """
    while True:
        try:
            handle = _opened(directory / MARKER)
        except OSError:
            return None
        if _held(handle, directory / MARKER):
            return Use(directory, handle)
        os.close(handle)


def last_used(directory: Path) -> float:
    """The time of the last use that was noted, else of the last change."""
    try:
        return (directory / MARKER).stat().st_mtime
    except OSError:
        return directory.stat().st_mtime


def _opened(marker: Path) -> int:
    try:
        return os.open(marker, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        return os.open(marker, os.O_RDONLY)  # someone else's, or read-only: it can still be locked


def _held(handle: int, marker: Path) -> bool:
    """Lock and touch the marker; false where it was deleted meanwhile, so that the lock says nothing."""
    with suppress(OSError):  # a file system without locks, on which nobody can prune either
        fcntl.flock(handle, fcntl.LOCK_SH)
    with suppress(OSError):
        if os.fstat(handle).st_mtime < time.time() - RESOLUTION:
            os.utime(handle)
    try:
        return os.path.samestat(os.fstat(handle), os.stat(marker))
    except FileNotFoundError:
        return False
