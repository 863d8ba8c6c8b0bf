"""Digests of files: what was read, said in a few characters."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

BLOCK = 1 << 20


def of_files(paths: Iterable[Path]) -> str:
    """Hash the names and contents of `paths`, in the order of their names, to 32 characters."""
    total = hashlib.blake2b(digest_size=16)
    for path in sorted(paths):
        status = path.stat()
        total.update(f"{path.name}:{_of_file(path, status.st_size, status.st_mtime_ns)}\n".encode())
    return total.hexdigest()


@functools.lru_cache(maxsize=256)
def _of_file(path: Path, size: int, modified: int) -> str:
    """Hash one file; size and time of change are only there so that a changed file is hashed again."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
