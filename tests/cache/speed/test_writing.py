"""Writing, synced: a write counts when the disk has it."""

from __future__ import annotations

import os
import pickle
import shutil
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch

from er.cache.store import ActivationCache
from er.training.batches import batches_of
from tests.cache.speed.leveldb import LEVELDB, Tagged
from tests.cache.speed.shelf import BATCH, ENTRIES, SPACE, WIDTH, Shelf, table, timed

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("kept", "batches_written", "least"),
    [("an entry a value", ENTRIES // BATCH, 2), ("a padded batch a value", 125, 4)],
)
def test_writing(kept: str, batches_written: int, least: float, shelf: Shelf, tmp_path: Path) -> None:
    plyvel = pytest.importorskip("plyvel")
    written = np.arange(batches_written * BATCH)
    size = int(shelf.lengths[written].sum())
    segments = np.array_split(written, max(1, size * 2 * WIDTH >> 26))
    parts = torch.split(shelf.activations[:size], [int(shelf.lengths[part].sum()) for part in segments])
    rows = torch.split(shelf.activations[:size], shelf.lengths[written].tolist())
    padded_batches = batches_of(written, BATCH) if kept != "an entry a value" else []
    given = {int(batch[0]): shelf.padded(batch) for batch in padded_batches}  # as a forward pass leaves them

    def ours(folder: Path) -> None:
        cache = ActivationCache(folder, SPACE, WIDTH)
        for part, packed in zip(segments, parts, strict=True):
            cache.publish(shelf.keys[part], shelf.lengths[part], packed, seconds=1)

    def copied(folder: Path) -> None:
        folder.mkdir()
        for number, packed in enumerate(parts):
            with open(folder / str(number), "wb") as file:
                file.write(packed.view(torch.uint8).numpy().data)
                file.flush()
                os.fsync(file.fileno())

    def theirs(folder: Path) -> None:
        db = plyvel.DB(str(folder), create_if_missing=True, **LEVELDB)
        for batch in batches_of(written, BATCH):
            with db.write_batch(sync=True) as put:
                if kept == "an entry a value":
                    for entry in batch:
                        put.put(shelf.keys[entry].tobytes(), pickle.dumps(Tagged("NUMPY", rows[entry].numpy())))
                else:
                    padded = given[int(batch[0])]
                    key = np.resize(
                        shelf.keys[batch].view(np.uint8), 2 * padded.size // WIDTH
                    )  # as long as its ids are
                    put.put(key.tobytes(), pickle.dumps(Tagged("NUMPY", padded)))
        db.close()

    seconds: dict[str, list[float]] = {"LevelDB": [], "er": [], "files": []}
    for turn in range(3):
        for name, arm in (("er", ours), ("LevelDB", theirs), ("files", copied)):
            seconds[name].append(timed(partial(arm, tmp_path / f"{name}-{turn}")))
            shutil.rmtree(tmp_path / f"{name}-{turn}")

    def ratio(of: str) -> float:
        return median(a / b for a, b in zip(seconds[of], seconds["er"], strict=True))

    table(
        f"writing, synced, LevelDB with {kept}",
        [
            ("LevelDB / er", ratio("LevelDB"), ">= 8"),
            ("the bare bytes, written and synced / er", ratio("files"), "-"),
            ("MB/s", size * 2 * WIDTH / 1e6 / median(seconds["er"]), "-"),
        ],
    )
    assert ratio("LevelDB") >= least
