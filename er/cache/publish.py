"""Files that appear whole or not at all, and the locks that keep writers apart."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from logging import getLogger
from pathlib import Path
from typing import IO
from uuid import uuid4

from er.errors import UserError

log = getLogger(__name__)

TEMPORARY = ".tmp-"
POLL_SECONDS = 0.1
REPORT_SECONDS = 30


def publish(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Make `path` appear whole or not at all.

    Readers never lock: they list what is published. A killed writer leaves a temporary file that no
    reader looks at and the next builder sweeps away.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            claim(file)
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
            temporary.rename(path)  # before the claim ends, or a sweeper could come between
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _fsync(path.parent)  # the name, too, must survive a power cut


def sweep(directory: Path) -> None:
    """Delete the temporary files whose writers are dead: nobody holds a claim on them."""
    for temporary in directory.glob(f"{TEMPORARY}*"):
        with suppress(OSError), open(temporary, "r+b") as file:
            if claim(file):
                temporary.unlink()


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's build lock; while another builder holds it, say so and wait."""
    with ExitStack() as held:
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
            file = held.enter_context(open(directory / "build.lock", "ab"))
            _wait_for(file, directory)
        yield


def _wait_for(file: IO[bytes], directory: Path) -> None:
    started, told = time.monotonic(), -1
    while not claim(file):
        waited = int(time.monotonic() - started)
        if waited // REPORT_SECONDS > told:
            told = waited // REPORT_SECONDS
            log.info("Another builder is at work in %s: waiting for it since %d s.", directory, waited)
        time.sleep(POLL_SECONDS)


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
