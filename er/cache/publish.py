"""Files that appear whole or not at all, and the locks that keep writers apart."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from logging import getLogger
from pathlib import Path
from typing import IO
from uuid import uuid4

from er.errors import UserError

log = getLogger(__name__)

TEMPORARY = ".tmp-"
LOCK = "build.lock"
POLL_SECONDS = 0.1
REPORT_SECONDS = 30


def publish(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Make `path` appear whole or not at all."""
    with staged(path) as file:
        for part in parts:
            file.write(part)


@contextmanager
def staged(path: Path) -> Iterator[IO[bytes]]:
    """Give a temporary file to fill, which becomes `path` at the end, unless an error ends it.

    Readers never lock: they list what is published. A killed writer leaves a temporary file that no
    reader looks at and the next builder sweeps away.
    """
    while True:
        temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{uuid4().hex}")
        try:
            with open(temporary, "xb") as file:
                if not claim(file) or not temporary.exists():
                    continue  # swept in the moment before it was claimed
                yield file
                file.flush()
                os.fsync(file.fileno())
                temporary.rename(path)  # before the claim ends, or a sweeper could come between
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        break
    _fsync(path.parent)  # the name, too, must survive a power cut


def sweep(directory: Path) -> None:
    """Delete the temporary files whose writers are dead; the directory's lock must be held."""
    for _ in living(directory, TEMPORARY):
        pass


def living(directory: Path, prefix: str) -> Iterator[IO[bytes]]:
    """Open the files that living writers have claimed, and delete those whose writers are dead."""
    for path in directory.glob(f"{prefix}*"):
        with suppress(OSError), open(path, "r+b") as file:
            if claim(file):
                path.unlink()
            else:
                yield file


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock, for what takes a moment; while another process holds it, wait."""
    with ExitStack() as held:
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
            file = held.enter_context(open(directory / LOCK, "ab"))
            wait(lambda: claim(file), directory)
        yield


def wait(done: Callable[[], bool], directory: Path, other: str = "builder") -> None:
    """Wait until something is done, and where that takes more than a second, say who keeps us."""
    started, told = time.monotonic(), 0.0
    while not done():
        waited = time.monotonic() - started
        if waited > told + (REPORT_SECONDS if told else 1):
            told = waited
            log.info("Another %s is at work in %s: waiting for it since %d s.", other, directory, waited)
        time.sleep(min(POLL_SECONDS, waited / 10))  # a moment's lock is not waited for longer than it is held


def claim(file: IO[bytes]) -> bool:
    """Lock an open file unless another process has; the kernel lets go when its holder closes it or dies.

    Not a lock file that means something by existing: one of those outlives a killed builder.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Turn the system's refusal to write into a message that says where and what to do."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"Cannot write the cache in {directory}: {error.strerror or error}. What was published there "
            "stays usable. Make room, or point paths.cache at a directory that can be written and locked."
        ) from error


def _fsync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
