"""The activations of one space: which are there, where they lie, and batches of them."""

from __future__ import annotations

import json
import os
import re
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from er.cache.codec import STORAGE, Bytes, Stored, decode, empty, encode, memories, token_bytes
from er.cache.index import Index, Locations, once
from er.cache.key import Ints, Keys, Space
from er.cache.layout import ENTRY_BYTES, SUFFIX
from er.cache.publish import publish, writing
from er.cache.segment import Segment, write
from er.errors import UserError

IDENTITY = "space.json"
SEGMENT = re.compile(rf"[0-9a-f]{{32}}{re.escape(SUFFIX)}")


class ActivationCache:
    """The cached activations of one space, in `<root>/<digest of the space>`.

    Reading takes no lock and needs no write permission, and nothing is created before the first write.
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
        self.refresh()

    def refresh(self) -> None:
        """Take up what was published since the last look."""
        names = sorted(self._published() - {segment.path.name for segment in self._segments})
        self._check_identity()
        segments = [segment for name in names if (segment := self._opened(name))]
        if segments:
            index = self._index.extended(segments, first=len(self._segments))
            self._segments += segments  # before the index, which points at them
            self._index = index

    def missing(self, keys: Keys) -> NDArray[np.intp]:
        """Positions of the keys that have no entry here, each key once, where it first comes."""
        first = np.sort(np.unique(keys, return_index=True)[1])
        return first[self._index.find(keys[first]) < 0]

    def locate(self, keys: Keys) -> Locations:
        """Where these entries lie: looked up once for a data set, so that no batch looks up anything."""
        at = self._index.find(keys)
        if (at < 0).any():
            raise UserError(
                f"{(at < 0).sum():,} of {len(keys):,} inputs are not in the cache at {self.directory}, "
                f"the first of them number {np.argmin(at)}. "
                "Build them first: `er cache` with the same options."
            )
        where: Locations = self._index.places[at]
        for segment in np.unique(where["segment"]):
            _ = self._segments[segment].mapped  # a mapped file stays readable when it is deleted
        return where

    def read(self, where: Locations, dtype: torch.dtype = torch.float32) -> Tensor:
        """Activations `(batch, longest, hidden)` of these entries, zero where they are padded."""
        longest = int(where["length"].max(initial=0))
        batch = empty(self.space.storage_dtype, (len(where), longest), self.hidden)
        with self._entries(where) as entries:
            for block, into in enumerate(memories(batch)):
                _pad([entry[block] for entry in entries], into)
        return decode(batch, dtype)

    def packed(self, where: Locations, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Activations `(tokens, hidden)` of these entries, one after the other, and their lengths."""
        lengths = torch.from_numpy(where["length"].astype(np.int64))
        x = empty(self.space.storage_dtype, (int(lengths.sum()),), self.hidden)
        with self._entries(where) as entries:
            for block, into in enumerate(memories(x)):
                np.concatenate([entry[block] for entry in entries] or [into], out=into)
        return decode(x, dtype), lengths

    def fetch(self, where: Locations) -> None:
        """Have these entries brought from the disk while something else is done."""
        for segment, _, start, length in where.tolist():
            self._segments[segment].advise(start, length)

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
            write(self.directory, self.space.digest, storage, keys, lengths, stored, seconds)
        self.refresh()

    @contextmanager
    def _entries(self, where: Locations) -> Iterator[list[list[Bytes]]]:
        """Each entry's rows, and its scales where there are any, to be copied before this ends."""
        places = where.tolist()
        cold = [self._paging or not self._segments[segment].seen[entry] for segment, entry, _, _ in places]
        self.fetch(where[cold])  # all are asked for before the first is waited for
        faults = _disk_faults()
        yield [self._segments[segment].entry(*place) for segment, *place in places]
        if not any(cold) and _disk_faults() > faults:
            self._paging = True  # memory does not hold what was read before: ask every time from now on

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


def _pad(parts: list[Bytes], into: Bytes) -> None:
    for row, part in zip(into, parts, strict=True):
        row[: len(part)] = part
        row[len(part) :] = 0  # cheaper than zeroing everything before
