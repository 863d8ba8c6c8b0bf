"""A published segment: written once, mapped when it is wanted, checked as it is read."""

from __future__ import annotations

import mmap
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from er.cache import layout
from er.cache.codec import STORAGE, Bytes, Stored, memories, memory
from er.cache.key import FORMAT, Ints, Keys
from er.cache.layout import Table, damaged
from er.cache.publish import publish
from er.errors import UserError


class Block(NamedTuple):
    """A run of the file that holds so many bytes for every token: the rows, or their scales."""

    offset: int
    width: int


class Mapped(NamedTuple):
    """A segment's memory in this process: that of its rows, and all that is stored as tensors."""

    map: mmap.mmap
    rows: Bytes
    stored: Stored


@dataclass(frozen=True, eq=False)
class Segment:
    """Packed activations of some entries: every token's vector, and where entries start.

    Entries are stored without padding. Padding is a property of a batch, and a batch is a property of a
    run, so neither belongs in a cache that many runs share.
    """

    path: Path
    space: str
    storage: str
    tokens: int
    hidden: int
    seconds: float
    """What computing these entries cost."""
    blocks: list[Block]
    size: int
    table: Table = field(repr=False)
    seen: bytearray = field(repr=False)
    """Entries that this process has found right, a byte each: they are not hashed again."""

    @classmethod
    def open(cls, path: Path, name: str = "") -> Segment:
        """Read header and table, checked; a vanished file is a `FileNotFoundError`."""
        head, header, table = layout.read(path, name)
        about = header["__metadata__"]
        if about["format"] != str(FORMAT):
            raise UserError(f"{path} has format {about['format']}, not {FORMAT}: delete {path.parent}.")
        entries, (tokens, hidden) = int(about["entries"]), header["x"]["shape"]
        return cls(
            path=path,
            space=about["space"],
            storage=next(storage for storage, tag in layout.TAGS.items() if tag == header["x"]["dtype"]),
            tokens=tokens,
            hidden=hidden,
            seconds=float(about["seconds"]),
            blocks=_blocks(header, len(head)),
            size=len(head) + header["checksums"]["data_offsets"][1],
            table=Table.frombytes(table, entries),
            seen=bytearray(entries),
        )

    @property
    def starts(self) -> NDArray[np.int64]:
        """Each entry's first row."""
        return np.cumsum(self.table.lengths, dtype=np.int64) - self.table.lengths

    @cached_property
    def mapped(self) -> Mapped:
        """The activations, mapped read-only; a page comes from the disk when it is touched or advised."""
        map, (offset, width) = _mapped(self.path, self.size), self.blocks[0]
        rows = np.frombuffer(map, np.uint8, self.tokens * width, offset)
        with warnings.catch_warnings(action="ignore"):  # that nobody may write there, which nobody does
            tensors = [
                torch.frombuffer(map, dtype=dtype, count=self.tokens * width // dtype.itemsize, offset=offset)
                for (offset, width), dtype in zip(self.blocks, (STORAGE[self.storage], torch.float32), strict=False)
            ]
        return Mapped(map, rows, Stored(tensors[0].view(self.tokens, -1), tensors[1] if tensors[1:] else None))

    def check(self, number: int, start: int, length: int) -> None:
        """Hash an entry, as is done the first time that this process reads it."""
        stored = (block[start : start + length] for block in self.mapped.stored if block is not None)
        if layout.checksum(memory(block).data for block in stored) != self.table.checksums[number]:
            raise damaged(self.path, self.wrong(number))
        self.seen[number] = True

    def advise(self, start: int, length: int) -> None:
        """Have the system fetch these tokens, so that a batch waits for the disk once, not page by page."""
        for offset, width in self.blocks:
            begin = offset + start * width
            page = begin - begin % mmap.PAGESIZE
            self.mapped.map.madvise(mmap.MADV_WILLNEED, page, begin - page + length * width)

    def wrong(self, number: int) -> str:
        """What is said of an entry whose bytes have changed."""
        return f"entry {number} ({self.table.keys[number].tobytes().hex()}) is not what was written"

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the map: another process makes its own, and checks for itself."""
        state = {name: value for name, value in self.__dict__.items() if name != "mapped"}
        return state | {"seen": bytearray(len(self.seen))}


def write(
    directory: Path,
    space: str,
    storage: str,
    keys: Keys,
    lengths: Ints,
    stored: Stored,
    seconds: float,
) -> Path:
    """Publish one segment of packed entries, whole or not at all."""
    blocks = [block.reshape(len(stored.rows), -1) for block in memories(stored)]
    ends = np.cumsum(lengths)
    spans = [slice(*span) for span in zip((ends - lengths).tolist(), ends.tolist(), strict=True)]
    checksums = [layout.checksum(block[span].data for block in blocks) for span in spans]
    table = Table(lengths, keys, np.array(checksums, layout.CHECKSUM)).tobytes()
    head = layout.header(space, storage, stored, len(keys), seconds)
    path = directory / f"{layout.name(head, table)}{layout.SUFFIX}"
    publish(path, [head, *(block.data for block in blocks), table])
    return path


def verify(path: Path, name: str = "") -> list[str]:
    """Read every byte of a segment and say what is wrong, a line each; an empty list means nothing.

    `name` is what it should be called, where that is not what it is called yet.
    """
    try:
        segment = Segment.open(path, name)
        found = np.array([layout.checksum(parts) for parts in raw(segment)], layout.CHECKSUM)
    except (UserError, OSError) as error:
        return [str(error)]
    wrong = np.flatnonzero(found != segment.table.checksums)
    return [f"{path}: {segment.wrong(int(number))}" for number in wrong]


def raw(segment: Segment) -> Iterator[list[bytes]]:
    """Each entry's bytes, unchecked, by ordinary reads: through a map, a bad disk would kill the process."""
    with open(segment.path, "rb") as file:
        for start, length in zip(segment.starts.tolist(), segment.table.lengths.tolist(), strict=True):
            yield [os.pread(file.fileno(), length * width, offset + start * width) for offset, width in segment.blocks]


def _blocks(header: dict[str, Any], begin: int) -> list[Block]:
    offsets = [header[name]["data_offsets"] for name in ("x", "scale") if name in header]
    return [Block(begin + start, (end - start) // header["x"]["shape"][0]) for start, end in offsets]


def _mapped(path: Path, size: int) -> mmap.mmap:
    try:
        with open(path, "rb") as file:
            map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be mapped: {error}. If it was deleted meanwhile, start the run again; "
            "if too many files are open, raise `ulimit -n`."
        ) from error
    if len(map) != size:
        raise damaged(path, f"it has {len(map):,} bytes, its header says {size:,}")
    map.madvise(mmap.MADV_RANDOM)  # else a cold disk is read many times over, ahead of every page
    return map
