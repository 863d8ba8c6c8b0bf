"""RecyclingDataModule: batches of tokens, labels and, where they are cached, hidden states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from er.cache import ActivationCache, Locations, entry_keys
from er.tasks import IGNORED
from er.timing import Stopwatch

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("input_ids", "token_type_ids")
"""What a tokenised split may hold of a model's inputs."""

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
        for index in random.permutation(len(batches)):
            yield batches[index].tolist()

    def _sorted(self, window: np.ndarray) -> np.ndarray:
        return np.argsort(self.lengths[window], kind="stable")


def batches_of(indices: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut `indices` into batches, the last of which may be smaller."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]


class Tokens:
    """Ragged token columns, padded only when a batch is made."""

    def __init__(self, columns: dict[str, list[np.ndarray]], pad_token_id: int) -> None:
        self.columns = columns
        self.lengths = np.array([len(ids) for ids in columns["input_ids"]], dtype=np.int64)
        self.padding = {"input_ids": pad_token_id, "token_type_ids": 0}

    @classmethod
    def of(cls, features: Dataset, pad_token_id: int) -> Tokens:
        """Take the token columns of a tokenised split."""
        names = [name for name in COLUMNS if name in features.column_names]
        return cls({name: [np.asarray(row) for row in features[name]] for name in names}, pad_token_id)

    @classmethod
    def joined(cls, parts: list[Tokens]) -> Tokens:
        """Put the rows of several splits behind each other."""
        columns = {name: [row for part in parts for row in part.columns[name]] for name in parts[0].columns}
        return cls(columns, parts[0].padding["input_ids"])

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, indices: np.ndarray) -> Tokens:
        """Take some of the rows."""
        columns = {name: [column[i] for i in indices] for name, column in self.columns.items()}
        return Tokens(columns, self.padding["input_ids"])

    def keys(self) -> np.ndarray:
        """Return the key of each row in any cache."""
        columns: Any = self.columns
        return entry_keys(columns["input_ids"], columns.get("token_type_ids"))

    def batch(self, indices: np.ndarray) -> dict[str, Tensor]:
        """Return the model's inputs for these rows, padded to the longest."""
        lengths = self.lengths[indices]
        inputs = {
            name: padded([column[i] for i in indices], int(lengths.max()), self.padding[name])
            for name, column in self.columns.items()
        }
        real = np.arange(lengths.max())[None] < lengths[:, None]
        return {**inputs, "attention_mask": torch.from_numpy(real.astype(np.int64))}


def padded(rows: list[np.ndarray], longest: int, value: int) -> Tensor:
    """Stack rows of unequal length into one tensor, filled up with `value`."""
    out = np.full((len(rows), longest), value, dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return torch.from_numpy(out)


class TokenLabels:
    """A label for every token, padded with IGNORED only when a batch is made."""

    def __init__(self, rows: list[np.ndarray]) -> None:
        self.rows = rows

    def __getitem__(self, indices: np.ndarray) -> TokenLabels:
        """Take some of the rows."""
        return TokenLabels([self.rows[i] for i in indices])

    def padded(self) -> Tensor:
        """Return the labels of all rows, padded to the longest."""
        return padded(self.rows, max(map(len, self.rows)), IGNORED)


def labels_of(features: Dataset, head: str) -> Tensor | TokenLabels:
    """Take the labels of a tokenised split: one a row, or for a `token` head one a token, or for `span` two."""
    labels = features["labels"][:]
    return TokenLabels([np.asarray(row) for row in labels]) if head == "token" else torch.tensor(labels)


@dataclass
class Split:
    """One split: its tokens, its labels and, where they are cached, its activations."""

    tokens: Tokens
    labels: Tensor | TokenLabels
    cache: ActivationCache | None = None
    where: Locations | None = None

    def batch(self, rows: list[int]) -> dict[str, Any]:
        """Assemble one batch."""
        indices = np.asarray(rows)
        labels = self.labels[indices]
        batch = {
            "inputs": self.tokens.batch(indices),
            "labels": labels.padded() if isinstance(labels, TokenLabels) else labels,
            "indices": torch.from_numpy(indices),
        }
        if self.cache is not None and self.where is not None:
            batch["hidden"] = self.cache.read(self.where[indices])
        return batch


class RecyclingDataModule(LightningDataModule):
    """Serves the splits of one task: `inputs`, `labels`, `indices`, and `hidden` where it is cached.

    Tokens are always served, too: the layers above the cut need the mask, and relative positions.
    """

    def __init__(self, splits: dict[str, Split], batch_size: int, seed: int, clock: Stopwatch) -> None:
        super().__init__()
        self.splits = splits
        self.batch_size = batch_size
        self.seed = seed
        self.clock = clock

    def train_dataloader(self) -> DataLoader:
        """Return shuffled, length-bucketed batches."""
        split = self.splits["train"]
        return self._loader(split, BucketedBatches(split.tokens.lengths, self.batch_size, self.seed), "read")

    def val_dataloader(self) -> DataLoader:
        """Return the dev split."""
        return self._evaluation(self.splits["dev"])

    def test_dataloader(self) -> DataLoader:
        """Return the test split."""
        return self._evaluation(self.splits["test"])

    def _evaluation(self, split: Split) -> DataLoader:
        by_length = np.argsort(split.tokens.lengths, kind="stable")
        batches = [batch.tolist() for batch in batches_of(by_length, self.batch_size)]
        return self._loader(split, batches, "read_evaluation")

    def _loader(self, split: Split, batches: Any, phase: str) -> DataLoader:
        def collate(indices: list[int]) -> dict[str, Any]:
            with self.clock(phase):
                return split.batch(indices)

        # In this process: sending activations through workers is ten times slower than reading them. And with
        # its own generator, so that a loader never moves the random state that dropout draws from.
        rows: Any = range(len(split.tokens))
        return DataLoader(rows, batch_sampler=batches, collate_fn=collate, generator=torch.Generator())
