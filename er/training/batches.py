"""Which inputs make a batch: of like length, so that little of it is padding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

WINDOW = 50
"""Batches shuffled together before they are sorted by length: enough to lose almost no work to padding."""


class BucketedBatches(Sampler[list[int]]):
    """Shuffled batches of inputs of like length: a batch is random, yet holds little padding.

    Every epoch has its own order, which depends on the seed and the epoch alone.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.first = 0
        """How many batches the next epoch leaves out, since an interrupted run has had them; then none again."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.lengths))
        size = self.batch_size * WINDOW
        windows = [order[start : start + size] for start in range(0, len(order), size)]
        batches = [batch for window in windows for batch in batches_of(window[self._sorted(window)], self.batch_size)]
        first, self.first = self.first, 0
        for index in random.permutation(len(batches))[first:]:
            yield batches[index].tolist()

    def _sorted(self, window: np.ndarray) -> np.ndarray:
        return np.argsort(self.lengths[window], kind="stable")


def batches_of(indices: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut `indices` into batches, the last of which may be smaller."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]
