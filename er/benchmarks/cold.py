"""Reading as after a restart: from a copy of the cache that the system is told to forget before every batch."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import Any

from er.cache import ActivationCache
from er.errors import UserError
from er.training.data import Split


class Cold:
    """Batches of a cached split, each from files of which no page is in memory.

    A copy, since pages that another reader maps are not forgotten.
    """

    def __init__(self, split: Split) -> None:
        if split.cache is None or not hasattr(os, "posix_fadvise"):
            raise UserError("bench.arms=cold: this system cannot be told to forget a file. Leave that arm out.")
        place = split.cache.directory
        shutil.copytree(place, place.parent / "cold" / place.name)
        cache = ActivationCache(place.parent / "cold", split.cache.space, split.cache.hidden)
        self.split = replace(split, cache=cache, where=None)

    def forget(self) -> None:
        """Open the cache anew, with nothing of it mapped, and drop its pages; all that is not the batch's own time."""
        old = self.split.cache
        assert old is not None
        cache = ActivationCache(old.directory.parent, old.space, old.hidden)
        self.split = replace(self.split, cache=cache, where=None)
        del old
        for path in cache.directory.glob("*.safetensors"):
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self.split.where = cache.locate(self.split.tokens.keys())

    def batch(self, rows: list[int]) -> dict[str, Any]:
        """Assemble a batch."""
        return self.split.batch(rows)
