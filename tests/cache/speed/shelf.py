"""What is read and written here: random entries with the lengths of real texts, and the clock and table for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from er.cache.key import KEY, Ints, Keys, Space
from er.cache.store import ActivationCache
from er.training.batches import BucketedBatches, batches_of

ENTRIES, WIDTH, BATCH = 20_000, 768, 32
SPACE = Space("speed", 6, "float32", "float16")


class Shelf(NamedTuple):
    """Entries with lengths like scicite's: half of them under 27 tokens, one in twenty over 86."""

    root: Path
    keys: Keys
    lengths: Ints
    activations: torch.Tensor

    def opened(self) -> ActivationCache:
        return ActivationCache(self.root, SPACE, WIDTH)

    def rows(self, entry: int) -> NDArray[np.float16]:
        end = int(self.lengths[: entry + 1].sum())
        return self.activations[end - int(self.lengths[entry]) : end].numpy()

    def padded(self, batch: Ints, zeros: bool = False) -> NDArray[np.float16]:
        """A batch as an encoder gives it, where padding attends like any token; or, kinder to the disk, zeros there."""
        shape = len(batch), int(self.lengths[batch].max()), WIDTH
        out = np.resize(self.activations[: shape[0] * shape[1]].numpy(), shape) * np.float16(not zeros)
        for row, entry in zip(out, batch, strict=True):
            row[: self.lengths[entry]] = self.rows(entry)
        return out


def published(root: Path, space: Space, width: int, entries: int, segment_tokens: int) -> tuple[Keys, Ints]:
    """Fill a space with random entries; return their keys and lengths."""
    rng, cache = np.random.default_rng(0), ActivationCache(root, space, width)
    lengths = np.exp(rng.normal(np.log(27), 0.7, entries)).clip(3, 434).astype(np.int64)
    keys = np.frombuffer(rng.bytes(16 * entries), KEY)
    number = (np.cumsum(lengths) - lengths) // segment_tokens
    for part in np.split(np.arange(entries), np.flatnonzero(np.diff(number)) + 1):
        cache.publish(keys[part], lengths[part], torch.randn(int(lengths[part].sum()), width), seconds=1)
    return keys, lengths


def batches(shelf: Shelf, order: str) -> list[Ints]:
    if order == "bucketed":
        return [np.array(batch) for batch in BucketedBatches(shelf.lengths, BATCH, seed=0)]
    return batches_of(np.random.default_rng(0).permutation(ENTRIES), BATCH)


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    del result
    return seconds


def table(title: str, rows: list[tuple[str, float, str]]) -> None:
    sys.stdout.write(
        f"\n{title}\n" + "".join(f"  {name:64} {value:8.3f}   goal {goal}\n" for name, value, goal in rows)
    )
