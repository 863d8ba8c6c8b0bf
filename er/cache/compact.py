"""Merges many small segments into few, copying entries byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from er.cache import layout, manifest
from er.cache.codec import empty, memories, token_bytes
from er.cache.publish import locked, sweep, writing
from er.cache.segment import Segment, raw, write
from er.cache.spaces import segments
from er.errors import UserError


@dataclass(frozen=True)
class Compacted:
    """What a space was merged from and into, and the bytes of it that were copied."""

    before: int
    after: int
    bytes: int


@dataclass(frozen=True)
class Source:
    """A segment that is to go, and which of its entries no other keeps."""

    segment: Segment
    wanted: NDArray[np.bool_]

    @property
    def bytes(self) -> int:
        """What of it is copied."""
        segment = self.segment
        return int(segment.table.lengths[self.wanted].sum()) * token_bytes(segment.storage, segment.hidden)


@dataclass(frozen=True)
class Entry:
    """One entry on its way."""

    parts: list[bytes]
    key: bytes
    length: int
    seconds: float


def compact(directory: Path, segment_bytes: int, progress: bool = True) -> Compacted:
    """Merge the segments of a space that are smaller than half of `segment_bytes`, and drop entries that are double.

    A segment is deleted when all its entries are published in others. So a kill loses nothing: it leaves entries
    double, which are dropped the next time. Readers keep what they have mapped.
    """
    with locked(directory), writing(directory):
        sweep(directory)
        opened = [checked(path, directory) for path in segments(directory)]
        sources = _sources(opened, segment_bytes)
        made = merge(directory, sources, segment_bytes, progress)
    dropped = {source.segment.path for source in sources} - made
    remain = {segment.path for segment in opened} - dropped | made
    return Compacted(len(opened), len(remain), sum(source.bytes for source in sources))


def checked(path: Path, directory: Path) -> Segment:
    """Open a segment of this space."""
    segment = Segment.open(path)
    if segment.space != directory.name:
        raise UserError(f"{path} belongs to another space, {segment.space}. Run `er cache action=verify repair=true`.")
    return segment


def _sources(opened: list[Segment], segment_bytes: int) -> list[Source]:
    """Choose what to merge, in the order it was written: that of the data sets, which reads well from a disk."""
    written = {segment.path: segment.path.stat().st_mtime_ns for segment in opened}
    small = {segment.path: 2 * _weight(segment) < segment_bytes for segment in opened}
    ranked = sorted(opened, key=lambda each: (small[each.path], written[each.path]))  # the large keep what is double
    found = [Source(segment, first) for segment, first in zip(ranked, _firsts(ranked), strict=True)]
    sources = [each for each in found if small[each.segment.path] or not each.wanted.all()]
    if len(sources) == 1 and sources[0].wanted.all():
        return []
    return sorted(sources, key=lambda each: written[each.segment.path])


def _weight(segment: Segment) -> int:
    return segment.tokens * token_bytes(segment.storage, segment.hidden)


def _firsts(ranked: list[Segment]) -> list[NDArray[np.bool_]]:
    """For each segment, which of its entries none before it has."""
    if not ranked:
        return []
    keys = [segment.table.keys for segment in ranked]
    first = np.zeros(sum(map(len, keys)), dtype=bool)
    first[np.unique(np.concatenate(keys), return_index=True)[1]] = True
    return np.split(first, np.cumsum([len(each) for each in keys])[:-1])


def merge(directory: Path, sources: list[Source], segment_bytes: int, progress: bool) -> set[Path]:
    """Copy the entries, and drop each source when all of its own are published; returns the new segments."""
    made: set[Path] = set()
    total, what = sum(source.bytes for source in sources), f"Merging {len(sources)} segments"
    with tqdm(total=total, unit="B", unit_scale=True, desc=what, disable=not progress or not sources) as bar:
        waiting: list[Entry] = []
        copied: list[Path] = []
        held = 0
        for source in sources:
            for entry in _entries(source):
                waiting.append(entry)
                held += sum(map(len, entry.parts))
                bar.update(sum(map(len, entry.parts)))
                if held >= segment_bytes:
                    made.add(_write(directory, source.segment, waiting))
                    _drop(copied, made)
                    waiting, held = [], 0
            copied.append(source.segment.path)
        if waiting:
            made.add(_write(directory, sources[-1].segment, waiting))
        _drop(copied, made)
    return made


def _entries(source: Source) -> Iterator[Entry]:
    """The wanted entries of a segment, each found to be what was written."""
    segment, table = source.segment, source.segment.table
    for number, parts in enumerate(raw(segment)):
        if not source.wanted[number]:
            continue
        if layout.checksum(parts) != table.checksums[number]:
            raise layout.damaged(segment.path, segment.wrong(number))
        length = int(table.lengths[number])
        yield Entry(parts, table.keys[number].tobytes(), length, segment.seconds * length / segment.tokens)


def _write(directory: Path, like: Segment, entries: list[Entry]) -> Path:
    lengths = np.array([entry.length for entry in entries], np.int64)
    stored = empty(like.storage, int(lengths.sum()), like.hidden)
    for block, memory in enumerate(memories(stored)):
        memory[:] = np.frombuffer(b"".join(entry.parts[block] for entry in entries), np.uint8)
    keys = np.array([entry.key for entry in entries], like.table.keys.dtype)
    seconds = sum(entry.seconds for entry in entries)
    path = write(directory, like.space, like.storage, keys, lengths, stored, seconds)
    manifest.add(path)
    return path


def _drop(copied: list[Path], made: set[Path]) -> None:
    for path in copied:
        if path not in made:  # the same entries in the same second make the same file
            manifest.drop(path)
    copied.clear()
