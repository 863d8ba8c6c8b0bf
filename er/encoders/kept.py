"""Checkpoints that had to be made from other files: made once, kept, and found there by every later run."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path


def kept(files: Iterable[Path], make: Callable[[Path], None]) -> Path:
    """Return the folder that `make` fills from these files, once for each state of theirs.

    It appears whole or not at all, and lies in the user's cache: the files may be read-only, and are left as they are.
    """
    target = _home() / _state(files)
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
            whole = Path(temporary) / "whole"
            whole.mkdir()
            make(whole)
            _publish(whole, target)
    return target


def _home() -> Path:
    """Return where such folders are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "er" / "converted"


def _state(files: Iterable[Path]) -> str:
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:32]


def _publish(whole: Path, target: Path) -> None:
    try:
        whole.rename(target)
    except OSError:
        if not target.is_dir():  # another process that came first is as good
            raise
