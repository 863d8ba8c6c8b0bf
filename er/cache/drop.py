"""Drops the entries of texts that are gone: what is left of their segments is copied into others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from er.cache.compact import Source, checked, merge
from er.cache.key import Keys
from er.cache.publish import locked, sweep, writing
from er.cache.spaces import segments


@dataclass(frozen=True)
class Dropped:
    """How many entries of a space were kept, and how many went."""

    kept: int
    gone: int


def keep_only(directory: Path, keys: Keys, segment_bytes: int, dry_run: bool = False, progress: bool = True) -> Dropped:
    """Drop every entry of a space but those of these keys.

    A segment is deleted when what is kept of it is published in another. So a kill loses nothing: it leaves entries
    double, or not dropped yet. Readers keep what they have mapped. A dry run only counts.
    """
    with locked(directory), writing(directory):
        sweep(directory)
        opened = [checked(path, directory) for path in segments(directory)]
        sources = [Source(segment, np.isin(segment.table.keys, keys)) for segment in opened]
        if not dry_run:
            merge(directory, [each for each in sources if not each.wanted.all()], segment_bytes, progress)
    kept = sum(int(each.wanted.sum()) for each in sources)
    return Dropped(kept, sum(len(each.wanted) for each in sources) - kept)
