"""The activations of one space: which are there, where they lie, and batches of them."""

from __future__ import annotations

import json
import os
import re
import resource
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from er.cache import manifest
from er.cache.assemble import put
from er.cache.buffers import Buffers
from er.cache.codec import STORAGE, Stored, encode, token_bytes
from er.cache.index import Index, Locations, once
from er.cache.key import Ints, Keys, Space
from er.cache.layout import ENTRY_BYTES, SUFFIX
from er.cache.publish import publish, writing
from er.cache.segment import Segment, write
from er.cache.usage import Use, use
from er.errors import UserError

IDENTITY = "space.json"
SEGMENT = re.compile(rf"[0-9a-f]{{32}}{re.escape(SUFFIX)}")


class ActivationCache:
    """The cached activations of one space, in `<root>/<digest of the space>`.

    Reading takes no lock and needs no write permission, and nothing is created before the first write.

    >>> from er.cache import Space, entry_keys
    >>> space = Space("digest of the lower layers' weights", 6, "float32", "float16")
    >>> cache = ActivationCache(folder, space, hidden=8)
    >>> keys = entry_keys([np.array([101, 7592, 102]), np.array([101, 102])])  # of two inputs' token ids
    >>> cache.publish(keys, np.array([3, 2]), torch.ones(5, 8), seconds=0.1)
    >>> cache.read(cache.locate(keys)).shape  # padded to the longest
    torch.Size([2, 3, 8])
    >>> cache.absent(entry_keys([np.array([101, 2053, 102])])).tolist()
    [True]
    """

    def __init__(self, root: Path, space: Space, hidden: int, about: Mapping[str, str] | None = None) -> None:
        """Open the space; `about` is for whoever lists it (a model's name), and identifies nothing."""
        if space.storage_dtype not in STORAGE:
            raise UserError(f"cache.dtype={space.storage_dtype} is unknown: choose one of {', '.join(STORAGE)}.")
        self.directory = Path(root) / space.digest
        self.space = space
        self.hidden = hidden
        self.about = dict(about or {})
        self._segments: list[Segment] = []
        self._index = Index()
        self._paging = False
        self._memory = Buffers().empty
        self._indexed = 0
        self._use: Use | None = None
        self.refresh()

    def refresh(self) -> None:
        """Take up what was published since the last look, and forget what was dropped before it was located."""
        self._use = self._use or use(self.directory)
        published, known = self._published(), [segment.path.name for segment in self._segments]
        self._check_identity()
        kept = [(i, s) for i, s in enumerate(self._segments) if s.path.name in published or "mapped" in vars(s)]
        segments = [segment for name in sorted(published.difference(known)) if (segment := self._opened(name))]
        new = list(enumerate(segments, start=len(known)))
        whole = len(kept) == self._indexed
        index = self._index.extended(new) if whole else Index().extended(kept + new)
        self._segments += segments  # before the index, which points at them
        self._index, self._indexed = index, len(kept + new)

    def missing(self, keys: Keys) -> NDArray[np.intp]:
        """Positions of the keys that have no entry here, each key once, where it first comes."""
        first = np.sort(np.unique(keys, return_index=True)[1])
        return first[self.absent(keys[first])]

    def absent(self, keys: Keys) -> NDArray[np.bool_]:
        """Which of these keys have no entry here."""
        return self._index.find(keys) < 0

    def locate(self, keys: Keys) -> Locations:
        """Where these entries lie: looked up once for a data set, so that no batch looks up anything.

        The shape is that of `keys`: `(inputs,)`, or `(inputs, parts)`.
        """
        where = self._found(keys)
        if not all(map(self._map, np.unique(where["segment"]))):
            self.refresh()  # some were merged into others since the last look
            where = self._found(keys)
            for segment in np.unique(where["segment"]):
                _ = self._segments[segment].mapped
        return where

    def read(self, where: Locations, dtype: torch.dtype = torch.float32) -> Tensor:
        """Activations `(batch, longest, hidden)` of these entries, zero where they are padded.

        Where an input has several parts, its row is these parts one after the other.
        """
        lengths = _lengths(where)
        longest = int(lengths.max(initial=0))
        x = self._memory((len(where) * longest, self.hidden), dtype)
        self._put(x, where, _stops(where, longest))
        return x.view(len(where), longest, self.hidden)

    def packed(self, where: Locations, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Activations `(tokens, hidden)` of these entries, one after the other, and the inputs' lengths."""
        x = self._memory((int(where["length"].sum()), self.hidden), dtype)
        self._put(x, where, accumulate(where["length"].ravel().tolist()))
        return x, torch.from_numpy(_lengths(where).astype(np.int64))

    def fetch(self, where: Locations) -> None:
        """Have these entries brought from the disk meanwhile, as far as they may not be in memory."""
        places: list[Any] = where.ravel().tolist()
        self._ask(places if self._paging else self._new(places))

    def cost(self, where: Locations) -> float:
        """Seconds that building these entries took, each counted once."""
        where = once(where)
        per_token = np.array([segment.seconds / segment.tokens for segment in self._segments])
        return float((per_token[where["segment"]] * where["length"]).sum())

    def nbytes(self, where: Locations) -> int:
        """Bytes that these entries take on disk, each counted once."""
        return self.size(once(where)["length"])

    def size(self, lengths: Ints) -> int:
        """Bytes that entries of these lengths take on disk, headers apart."""
        tokens = int(lengths.sum())
        return tokens * token_bytes(self.space.storage_dtype, self.hidden) + len(lengths) * ENTRY_BYTES

    def publish(self, keys: Keys, lengths: Ints, activations: Tensor | Stored, seconds: float) -> None:
        """Write packed activations `(tokens, hidden)` as one segment, whole or not at all, and take it up."""
        storage, lengths = self.space.storage_dtype, np.asarray(lengths, np.int64)
        stored = encode(activations, storage) if isinstance(activations, Tensor) else activations
        if not len(keys) == len(lengths) > 0 or np.min(lengths) < 1:
            raise ValueError(f"{len(keys)} keys need as many lengths, all above zero, got {lengths}.")
        if stored.rows.shape != (lengths.sum(), self.hidden):
            raise ValueError(f"{tuple(stored.rows.shape)} rows where {lengths.sum()} tokens of {self.hidden} belong.")
        with writing(self.directory):
            self._write_identity()
            manifest.add(write(self.directory, self.space.digest, storage, keys, lengths, stored, seconds))
        self.refresh()

    def _found(self, keys: Keys) -> Locations:
        at = self._index.find(keys)
        if (at < 0).any():
            raise UserError(
                f"{(at < 0).sum():,} of {keys.size:,} inputs are not in the cache at {self.directory}, "
                f"the first of them number {np.argmin(at)}. "
                "Build them first: `er cache` with the same options."
            )
        where: Locations = self._index.places[at]
        return where

    def _map(self, segment: int) -> bool:
        """Map a segment, as a mapped file stays readable when it is deleted; false where it is deleted already."""
        try:
            return bool(self._segments[segment].mapped)
        except UserError:
            if self._segments[segment].path.exists():
                raise
            return False

    def _put(self, x: Tensor, where: Locations, stops: Iterable[int]) -> None:
        """Fill `x` with these entries, each of which stops at such a token."""
        places: list[Any] = where.ravel().tolist()
        segments = self._segments
        new = self._new(places)
        self._ask(places if self._paging else new)  # all are asked for before the first is waited for
        for segment, *place in new:
            segments[segment].check(*place)
        faults = _disk_faults()
        maps = {segment: segments[segment].mapped for segment in {place[0] for place in places}}
        as_stored = x.dtype == STORAGE[self.space.storage_dtype] and self.space.storage_dtype != "int8"
        put(x, places, stops, maps, as_stored)
        if not new and _disk_faults() > faults:
            self._paging = True  # memory does not hold what was read before: ask every time from now on

    def _new(self, places: list[Any]) -> list[Any]:
        return [place for place in places if not self._segments[place[0]].seen[place[1]]]

    def _ask(self, places: list[Any]) -> None:
        for segment, _, start, length in places:
            self._segments[segment].advise(start, length)

    def _published(self) -> set[str]:
        try:
            return {name for name in os.listdir(self.directory) if SEGMENT.fullmatch(name)}
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise UserError(
                f"Cannot read the cache at {self.directory}: {error.strerror}. "
                "Point paths.cache at a directory, or at a path that does not exist yet."
            ) from error

    def _opened(self, name: str) -> Segment | None:
        try:
            segment = Segment.open(self.directory / name)
        except FileNotFoundError:
            return None  # dropped since it was listed
        found = (segment.space, segment.storage, segment.hidden)
        expected = (self.space.digest, self.space.storage_dtype, self.hidden)
        if found != expected:
            raise UserError(
                f"{segment.path} holds (space, dtype, width) = {found} where {expected} belongs: delete it."
            )
        return segment

    def _identity(self) -> dict[str, Any]:
        return {"space": asdict(self.space), "hidden": self.hidden}

    def _check_identity(self) -> None:
        path = self.directory / IDENTITY
        try:
            found = json.loads(path.read_bytes())
            same = {name: found[name] for name in self._identity()} == self._identity()
        except FileNotFoundError:
            return
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(f"{path} is unreadable ({error}). Delete {self.directory}: it is rebuilt.") from error
        if not same:
            raise UserError(
                f"{path} describes another space or another format ({found}), expected {self._identity()}. "
                f"Delete {self.directory}: it is rebuilt."
            )

    def _write_identity(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if not (self.directory / IDENTITY).exists():
            created = datetime.now(UTC).isoformat(timespec="seconds")
            text = json.dumps(self._identity() | {"about": self.about, "created": created}, indent=2)
            publish(self.directory / IDENTITY, [text.encode() + b"\n"])


def _disk_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def _lengths(where: Locations) -> Ints:
    """The tokens of each input, of all its parts."""
    lengths: Ints = where["length"]
    return lengths if where.ndim == 1 else lengths.sum(axis=1)


def _stops(where: Locations, longest: int) -> Iterable[int]:
    """Where each entry stops in a padded batch: where the next part begins, and the last at its row's end."""
    ends = range(longest, (len(where) + 1) * longest, longest) if longest else ()
    if where.ndim == 1:
        return ends
    stops = np.array(ends, np.int64)[:, None] - longest + np.cumsum(where["length"], axis=1)
    stops[:, -1] = ends
    return cast(list[int], stops.ravel().tolist())
