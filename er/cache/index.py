"""Which entries a space has, and where each lies: sorted arrays that one binary search looks up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from er.cache.key import KEY, Keys
from er.cache.segment import Segment

PLACE = np.dtype([("segment", "i4"), ("entry", "i4"), ("start", "i8"), ("length", "i4")])
Locations: TypeAlias = NDArray[np.void]
"""Where entries lie, an array of `PLACE`: what `ActivationCache.locate` gives, and any selection of it.

Of shape `(inputs,)`, or `(inputs, parts)` where an input's activation is that of its parts, one after the other.
It means something only to the cache that gave it, and to copies of that cache.
"""


class Index(NamedTuple):
    """Every key, sorted, and the place of its entry; replaced as a whole, so that nobody sees half of one."""

    keys: Keys = np.empty(0, KEY)
    places: Locations = np.empty(0, PLACE)

    def extended(self, segments: Sequence[tuple[int, Segment]]) -> Index:
        """This index with the entries of more segments, each with its number."""
        if not segments:
            return self
        keys = np.concatenate([self.keys, *(segment.table.keys for _, segment in segments)])
        places = np.concatenate([self.places, *(_places(segment, number) for number, segment in segments)])
        keys, once = np.unique(keys, return_index=True)  # builders that share no lock may repeat an entry
        return Index(keys, places[once])

    def find(self, keys: Keys) -> NDArray[np.intp]:
        """Each key's position in the index, -1 where it is absent."""
        if not len(self.keys):
            return np.full(keys.shape, -1)
        at = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        return np.where(self.keys[at] == keys, at, -1)


def once(where: Locations) -> Locations:
    """The same entries without repetition, whatever the shape of `where`."""
    where = where.ravel()
    entries = where["segment"].astype(np.int64) << 32 | where["entry"]
    chosen: Locations = where[np.unique(entries, return_index=True)[1]]
    return chosen


def _places(segment: Segment, number: int) -> Locations:
    places = np.empty(len(segment.table.keys), PLACE)
    places["segment"], places["entry"] = number, np.arange(len(places))
    places["start"], places["length"] = segment.starts, segment.table.lengths
    return places
