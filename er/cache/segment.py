"""A published segment: written once, mapped when it is wanted, checked as it is read."""

from __future__ import annotations

import mmap
import os
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from er.cache import layout
from er.cache.codec import STORAGE, Stored, memory
from er.cache.key import FORMAT
from er.cache.layout import Bytes, Table, damaged
from er.cache.publish import publish
from er.errors import UserError


class Mapped(NamedTuple):
    """A segment's memory in this process, as bytes (to hash) and as tensors (to read)."""

    map: mmap.mmap
    rows: Bytes
    scale: Bytes
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
    offset: int
    """Where the first row lies in the file."""
    size: int
    table: Table = field(repr=False)
    seen: NDArray[np.bool_] = field(repr=False)
    """Entries that this process has found right, a byte each: they are not hashed again."""

    @classmethod
    def open(cls, path: Path) -> Segment:
        """Read header and table, checked; a vanished file is a `FileNotFoundError`."""
        head, header, table = layout.read(path)
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
            offset=len(head),
            size=len(head) + header["checksums"]["data_offsets"][1],
            table=Table.frombytes(table, entries),
            seen=np.zeros(entries, dtype=bool),
        )

    @property
    def starts(self) -> NDArray[np.int64]:
        """Each entry's first row."""
        return np.cumsum(self.table.lengths, dtype=np.int64) - self.table.lengths

    @cached_property
    def row_bytes(self) -> int:
        """What one token's row takes, without its scale."""
        return self.hidden * STORAGE[self.storage].itemsize

    @cached_property
    def scale_bytes(self) -> int:
        """What one token's scale takes."""
        return 4 if self.storage == "int8" else 0

    @cached_property
    def scale_offset(self) -> int:
        """Where the first scale lies in the file."""
        return self.offset + self.tokens * self.row_bytes

    @cached_property
    def mapped(self) -> Mapped:
        """The activations, mapped read-only; a page comes from the disk when it is touched or advised."""
        map = _mapped(self.path, self.size)
        rows = _bytes(map, self.offset, self.tokens, self.row_bytes)
        scale = _bytes(map, self.scale_offset, self.tokens, self.scale_bytes)
        _will_need(map, self.scale_offset, scale.size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of read-only memory; nothing here writes to it
            x = torch.from_numpy(rows).view(STORAGE[self.storage])
            factors = torch.from_numpy(scale).view(torch.float32)[:, 0] if self.scale_bytes else None
        return Mapped(map, rows, scale, Stored(x, factors))

    def entry(self, number: int, start: int, length: int) -> Stored:
        """One entry as it is stored, hashed against the table the first time that this process reads it."""
        (_, rows, scale, (x, factors)), end = self.mapped, start + length
        if not self.seen[number]:
            if layout.checksum(rows[start:end].data, scale[start:end].data) != self.table.checksums[number]:
                raise damaged(self.path, self.wrong(number))
            self.seen[number] = True
        return Stored(x[start:end], None if factors is None else factors[start:end])

    def advise(self, start: int, length: int) -> None:
        """Have the system fetch these rows, so that a batch waits for the disk once and not page by page."""
        _will_need(self.mapped.map, self.offset + start * self.row_bytes, length * self.row_bytes)

    def wrong(self, number: int) -> str:
        """What is said of an entry whose bytes have changed."""
        return f"entry {number} ({self.table.keys[number].tobytes().hex()}) is not what was written"

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the map: another process makes its own, and checks for itself."""
        state = {name: value for name, value in self.__dict__.items() if name != "mapped"}
        return state | {"seen": np.zeros_like(self.seen)}


def write(
    directory: Path,
    space: str,
    storage: str,
    keys: NDArray[np.void],
    lengths: NDArray[np.integer[Any]],
    stored: Stored,
    seconds: float,
) -> Path:
    """Publish one segment of packed entries, whole or not at all."""
    rows, scale = memory(stored.rows), layout.scale_memory(stored)
    ends = np.cumsum(lengths)
    spans = [slice(*span) for span in zip((ends - lengths).tolist(), ends.tolist(), strict=True)]
    checksums = np.array(
        [layout.checksum(rows[span].data, scale[span].data) for span in spans], layout.CHECKSUM
    )
    table = Table(lengths.astype(layout.LENGTH), keys, checksums).tobytes()
    head = layout.header(space, storage, stored, len(keys), seconds)
    path = directory / f"{layout.name(head, table)}{layout.SUFFIX}"
    publish(path, [head, rows.data, scale.data, table])
    return path


def verify(path: Path) -> list[str]:
    """Read every byte of a segment and say what is wrong, a line each; an empty list means nothing."""
    try:
        segment = Segment.open(path)
        with open(path, "rb") as file:
            wrong = [number for number, found in enumerate(_checksums(file.fileno(), segment)) if not found]
    except (UserError, OSError) as error:
        return [str(error)]
    return [f"{path}: {segment.wrong(number)}" for number in wrong]


def _checksums(file: int, segment: Segment) -> list[bool]:
    """Whether each entry is right, by ordinary reads: in a map, a bad disk would kill the process."""
    rows, scale = segment.row_bytes, segment.scale_bytes
    found = [
        layout.checksum(
            os.pread(file, length * rows, segment.offset + start * rows),
            os.pread(file, length * scale, segment.scale_offset + start * scale),
        )
        for start, length in zip(segment.starts.tolist(), segment.table.lengths.tolist(), strict=True)
    ]
    right: list[bool] = (np.array(found, layout.CHECKSUM) == segment.table.checksums).tolist()
    return right


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


def _bytes(map: mmap.mmap, offset: int, tokens: int, width: int) -> Bytes:
    return np.frombuffer(map, np.uint8, tokens * width, offset).reshape(tokens, width)


def _will_need(map: mmap.mmap, start: int, length: int) -> None:
    aligned = start - start % mmap.PAGESIZE
    if length:
        map.madvise(mmap.MADV_WILLNEED, aligned, length + start - aligned)
