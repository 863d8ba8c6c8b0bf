"""Warm: batches whose activations are in memory already, checked already."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from er.cache.key import Ints
from er.training.batches import batches_of
from tests.cache.speed.leveldb import filled, original, tagged
from tests.cache.speed.shelf import BATCH, WIDTH, Shelf, batches, table, timed

pytestmark = pytest.mark.slow


class Wanted(NamedTuple):
    """What is asserted, which leaves room for a busy machine, and what is wished for."""

    least: float
    goal: float


TARGETS = {
    "shuffled": {
        "LevelDB, an entry a value, its float32 / er": Wanted(4, 4),
        "LevelDB, an entry a value, left float16 / er": Wanted(2, 4),
        "LevelDB, an entry a value, float32 / er, float32": Wanted(1.5, 4),
        "LevelDB, a batch a value, its float32 / er": Wanted(3, 15),
        "LevelDB, a batch padded with zeros, its float32 / er": Wanted(8, 15),
        "LevelDB, a batch padded with zeros, left float16 / er": Wanted(6, 15),
        "memcpy and zeroing / er": Wanted(0.5, 0.6),
        "memcpy / er, packed": Wanted(0.5, 0.6),
    },
    "bucketed": {
        "LevelDB, an entry a value, its float32 / er": Wanted(4, 5),
        "LevelDB, an entry a value, left float16 / er": Wanted(2, 5),
        "LevelDB, an entry a value, float32 / er, float32": Wanted(1.5, 5),
        "LevelDB, a batch a value, its float32 / er": Wanted(1.2, 15),
        "memcpy / er": Wanted(0.45, 0.5),
        "memcpy / er, packed": Wanted(0.45, 0.6),
    },
}


def repeated(arm: Callable[[int], object], turns: Ints) -> None:
    for turn in turns:
        arm(turn)


@pytest.mark.parametrize("order", TARGETS)
def test_warm_batches(order: str, shelf: Shelf, entry_db: Any, tmp_path: Path) -> None:
    """The original stores padded batches, at their ids in 16 bits, and hands out float32, cast on the CPU.

    Real padding does not compress, so that LevelDB only copies it; zeros, as storage.md had them, it unpacks.
    """
    cache, rng = shelf.opened(), np.random.default_rng(0)
    where, chosen = cache.locate(shelf.keys), batches(shelf, order)[:120]
    for part in np.array_split(where, 200):
        cache.packed(part, torch.float16)  # from here on nothing is hashed, and memory holds everything
    ids = [torch.from_numpy(rng.integers(0, 30_000, (len(b), int(shelf.lengths[b].max())))) for b in chosen]
    keys = [each.to(torch.int16).numpy().tobytes() for each in ids]
    as_is = filled(tmp_path / "batches", zip(keys, map(shelf.padded, chosen), strict=True))
    zeros = filled(tmp_path / "zeros", zip(keys, (shelf.padded(b, zeros=True) for b in chosen), strict=True))
    flat, buffer, other = shelf.activations.view(torch.uint8).numpy(), *np.zeros((2, BATCH * 434, 2 * WIDTH), np.uint8)

    def entries(value: Callable[[bytes], torch.Tensor]) -> Callable[[int], torch.Tensor]:
        def read(turn: int) -> torch.Tensor:
            rows = [value(entry_db.get(shelf.keys[entry].tobytes())) for entry in chosen[turn]]
            return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

        return read

    def hooks(db: Any, value: Callable[[bytes], torch.Tensor]) -> Callable[[int], torch.Tensor]:
        return lambda turn: value(db.get(ids[turn].to(torch.int16).numpy().tobytes()))

    def copied(turn: int, into: NDArray[np.uint8]) -> int:
        size = int(shelf.lengths[chosen[turn]].sum())
        start = int(rng.integers(len(flat) - size))
        np.copyto(into[:size], flat[start : start + size])
        return size

    def copied_and_zeroed(turn: int) -> None:
        size = copied(turn, buffer)
        buffer[size : len(chosen[turn]) * int(shelf.lengths[chosen[turn]].max())] = 0

    arms: dict[str, Callable[[int], object]] = {
        "er": lambda turn: cache.read(where[chosen[turn]], torch.float16),
        "er, float32": lambda turn: cache.read(where[chosen[turn]]),
        "er, packed": lambda turn: cache.packed(where[chosen[turn]], torch.float16),
        "LevelDB, an entry a value, its float32": entries(original),
        "LevelDB, an entry a value, left float16": entries(tagged),
        "LevelDB, a batch a value, its float32": hooks(as_is, original),
        "LevelDB, a batch padded with zeros, its float32": hooks(zeros, original),
        "LevelDB, a batch padded with zeros, left float16": hooks(zeros, tagged),
        "memcpy": lambda turn: copied(turn, other),
        "memcpy and zeroing": copied_and_zeroed,
    }
    arms["LevelDB, an entry a value, float32"] = arms["LevelDB, an entry a value, its float32"]
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for block in batches_of(np.tile(np.arange(len(chosen)), 3), 20):
        for name in rng.permutation(list(arms)):
            seconds[name].append(timed(partial(repeated, arms[name], block)))
    as_is.close()
    zeros.close()

    def ratio(title: str) -> float:
        of, over = title.split(" / ")
        return median(a / b for a, b in zip(seconds[of][1:], seconds[over][1:], strict=True))

    found = {title: (ratio(title), wanted) for title, wanted in TARGETS[order].items()}
    payload = sum(int(shelf.lengths[batch].sum()) for batch in chosen) / len(chosen) * 20 * 2 * WIDTH
    table(
        f"warm, {order}, {BATCH} x {WIDTH}, float16",
        [(name, value, f">= {wanted.goal}") for name, (value, wanted) in found.items()]
        + [(f"{name}, GB/s of real tokens", payload / 1e9 / median(each), "-") for name, each in seconds.items()],
    )
    assert not [title for title, (value, wanted) in found.items() if value < wanted.least]
