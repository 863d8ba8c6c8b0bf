"""Cold: nothing of the cache in memory, as on the first day or after a larger job."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.cache.speed.leveldb import LEVELDB, original
from tests.cache.speed.shelf import WIDTH, Shelf, batches, table, timed

pytestmark = pytest.mark.slow


def forget(*folders: Path) -> None:
    """Drop files from the page cache; nothing may have them mapped."""
    gc.collect()
    os.sync()
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def from_disk() -> int:
    """Bytes that this process has had read from disks."""
    return int(next(line.split()[1] for line in Path("/proc/self/io").read_text().splitlines() if "read_bytes" in line))


def test_first_cold_batches(shelf: Shelf) -> None:
    chosen = batches(shelf, "shuffled")[:15]
    payload = sum(int(shelf.lengths[batch].sum()) for batch in chosen) * 2 * WIDTH

    def read() -> tuple[float, float]:
        cache = shelf.opened()
        where, before = cache.locate(shelf.keys), from_disk()
        seconds = timed(lambda: [cache.read(where[batch], torch.float16) for batch in chosen])
        return seconds, (from_disk() - before) / payload

    def plain() -> tuple[float, float]:
        cache = shelf.opened()
        where, before = cache.locate(shelf.keys), from_disk()
        maps = [np.memmap(segment.path, np.uint8, "r") for segment in cache._segments]
        offsets = [segment.blocks[0].offset for segment in cache._segments]

        def entry(segment: int, _: int, start: int, length: int) -> NDArray[np.uint8]:
            begin = offsets[segment] + start * 2 * WIDTH
            return np.array(maps[segment][begin : begin + length * 2 * WIDTH])

        seconds = timed(lambda: [[entry(*place) for place in where[batch].tolist()] for batch in chosen])
        return seconds, (from_disk() - before) / payload

    ours, theirs = [], []
    for _ in range(3):
        forget(shelf.root)
        ours.append(read())
        forget(shelf.root)
        theirs.append(plain())
    faster = median(slow / fast for (slow, _), (fast, _) in zip(theirs, ours, strict=True))
    amplification = median(each for _, each in ours)
    table(
        "cold, the first 15 shuffled batches",
        [
            ("a plain mmap / er", faster, ">= 20"),
            ("bytes from disk / payload", amplification, "<= 1.15"),
            ("bytes from disk / payload of a plain mmap", median(each for _, each in theirs), "-"),
            ("MB/s", payload / 1e6 / median(seconds for seconds, _ in ours), "-"),
        ],
    )
    assert amplification <= 1.15
    assert faster >= 10


def test_a_cold_epoch(shelf: Shelf, tmp_path: Path, entry_db: Any) -> None:
    plyvel = pytest.importorskip("plyvel")
    chosen = batches(shelf, "shuffled")
    home = Path(entry_db.name)
    entry_db.close()  # it has its files mapped

    def theirs() -> None:
        db = plyvel.DB(str(home), **LEVELDB)
        for batch in chosen:
            rows = [original(db.get(shelf.keys[i].tobytes())) for i in batch]
            torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        db.close()

    def ours() -> None:
        cache = shelf.opened()
        where = cache.locate(shelf.keys)
        for batch in chosen:
            cache.read(where[batch], torch.float16)

    def straight() -> None:
        buffer = bytearray(8 << 20)
        for path in shelf.opened().directory.glob("*.safetensors"):
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    seconds: dict[str, list[float]] = {"LevelDB": [], "er": [], "files": []}
    for _ in range(3):
        for name, arm in (("er", ours), ("LevelDB", theirs), ("files", straight)):
            forget(shelf.root, home)
            seconds[name].append(timed(arm))
    ratio = {name: median(a / b for a, b in zip(each, seconds["er"], strict=True)) for name, each in seconds.items()}
    size = shelf.lengths.sum() * 2 * WIDTH / 1e6
    table(
        "cold, a whole shuffled epoch",
        [
            ("LevelDB / er", ratio["LevelDB"], ">= 3"),
            ("the files, read from end to end / er", ratio["files"], "-"),
            ("MB/s", size / median(seconds["er"]), "-"),
        ],
    )
    assert ratio["LevelDB"] >= 1
