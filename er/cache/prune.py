"""Deletes spaces, the one that was used longest ago first, and never one that somebody uses."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from er.cache.manifest import MANIFEST
from er.cache.publish import LOCK, writing
from er.cache.spaces import chosen, ours, size
from er.cache.usage import MARKER, last_used
from er.errors import UserError


@dataclass(frozen=True)
class Candidate:
    """A space that may be deleted."""

    directory: Path
    bytes: int
    used: float
    busy: bool
    """Somebody builds it or reads it."""


def candidates(root: Path, prefix: str | None = None, older_than: float = 0) -> list[Candidate]:
    """The spaces that were last used so many seconds ago or earlier, longest ago first."""
    now = time.time()
    found = [Candidate(path, size(path), last_used(path), _busy(path)) for path in chosen(root, prefix)]
    return sorted((each for each in found if now - each.used >= older_than), key=lambda each: each.used)


def plan(found: Iterable[Candidate], surplus: float) -> list[Candidate]:
    """Choose what to delete so that `surplus` bytes go, as far as what is not in use suffices."""
    plan: list[Candidate] = []
    for each in found:
        if not each.busy and sum(other.bytes for other in plan) < surplus:
            plan.append(each)
    return plan


def delete(directory: Path) -> bool:
    """Delete a space, all of it that `er` put there; false where somebody has begun to use it.

    Killed halfway, it leaves a space with fewer segments.
    """
    with writing(directory), _unused(directory, os.O_RDWR | os.O_CREAT) as unused:
        if unused:
            _delete(directory)
    return unused


def _delete(directory: Path) -> None:
    locks = [directory / MARKER, directory / LOCK]
    (directory / MANIFEST).unlink(missing_ok=True)  # from here on nothing is missing
    for path in sorted(set(filter(ours, directory.iterdir())) - set(locks)) + locks:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # somebody's files, or a builder's who has just come
        directory.rmdir()


def _busy(directory: Path) -> bool:
    with _unused(directory, os.O_RDWR) as unused:
        return not unused


@contextmanager
def _unused(directory: Path, flags: int) -> Iterator[bool]:
    """Hold what builders and readers of a space hold, for as long as it is looked at; false where one of them does."""
    with ExitStack() as held:
        yield all(_claimed(directory / name, flags, held) for name in (LOCK, MARKER))


def _claimed(path: Path, flags: int, held: ExitStack) -> bool:
    try:
        handle = os.open(path, flags, 0o666)
        held.callback(os.close, handle)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(handle), os.stat(path))  # else it was deleted, and made again by another
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(
            f"Cannot lock {path}: {error.strerror}. Without locks nobody can tell whether the space is in use: "
            f"if you know that it is not, delete {path.parent} yourself."
        ) from error
