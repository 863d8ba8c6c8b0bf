"""How builders share what is missing: each takes on some entries, and no other computes these."""

from __future__ import annotations

import os
from contextlib import ExitStack
from types import TracebackType
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from er.cache.key import KEY, Keys
from er.cache.publish import TEMPORARY, claim, living, locked, wait, writing
from er.cache.store import ActivationCache

CLAIM = f"{TEMPORARY}claim-"


class Claims:
    """The entries of a space that one builder has taken on: files of their keys, locked while the builder lives.

    An entry is taken on under the directory's lock, and only if it is neither published nor claimed by a living
    builder; the claim ends after it is published, or with its builder. So no two ever compute the same entry, whichever
    sets they want, and what a killed builder had taken on is free again. (On NFS a lock is the server's, and a listing
    may be seconds old: there an entry may at worst be computed twice, and is served once.)
    """

    def __init__(self, cache: ActivationCache) -> None:
        self.cache = cache
        self._held = ExitStack()

    def take(self, keys: Keys) -> NDArray[np.bool_]:
        """Take on those of these entries that are free, and say which."""
        with locked(self.cache.directory):
            free = unclaimed(self.cache, keys)
            if free.any():
                self._write(keys[free])
        return free

    def release(self) -> None:
        """Let go of everything: published or not, it is nobody's any more."""
        self._held.close()

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        self.release()

    def _write(self, keys: Keys) -> None:
        path = self.cache.directory / f"{CLAIM}{os.getpid()}-{uuid4().hex}"
        held = self._held
        with writing(self.cache.directory):
            held.callback(path.unlink, missing_ok=True)
            path.write_bytes(keys.tobytes())  # closed once before it is locked: only then does NFS show it to others
            claim(held.enter_context(path.open("r+b")))


def unclaimed(cache: ActivationCache, keys: Keys) -> NDArray[np.bool_]:
    """Which of these distinct entries are neither there nor claimed; the directory's lock must be held."""
    claimed = [np.frombuffer(file.read(), KEY) for file in living(cache.directory, CLAIM)]
    cache.refresh()  # after the claims were read: builders publish first, and let go then
    free = ~np.isin(keys, np.concatenate([np.empty(0, KEY), *claimed]))
    free[free] = cache.absent(keys[free])
    return free


def wait_for_others(cache: ActivationCache, keys: Keys) -> None:
    """Wait until other builders have published some of these entries, or let go of some."""

    def moved() -> bool:
        with locked(cache.directory):
            free = unclaimed(cache, keys)
        return bool(free.any()) or not cache.absent(keys).all()

    wait(moved, cache.directory)
