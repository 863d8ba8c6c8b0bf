"""RecyclingDataModule: batches of tokens, labels and, where they are cached, hidden states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from er.cache import ActivationCache, Locations, entry_keys
from er.tasks import IGNORED
from er.tasks.tokens import ragged
from er.timing import Stopwatch
from er.training import ranks
from er.training.ahead import AHEAD, Ahead
from er.training.batches import BucketedBatches, batches_of

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("input_ids", "token_type_ids")
"""What a tokenised split may hold of a model's inputs."""

PerRow = np.ndarray | None
"""A number for every row, or for none."""


class Tokens:
    """Ragged token columns, padded only when a batch is made.

    A row with a seam is two texts that are encoded apart: so many tokens of the first, then the second. `starts` says
    at which position a row, or else its second text, begins; position 0 is what the model calls `first_position`.
    """

    def __init__(
        self,
        columns: dict[str, list[np.ndarray]],
        pad_token_id: int,
        seams: PerRow = None,
        starts: PerRow = None,
        first_position: int = 0,
    ) -> None:
        self.columns = columns
        self.seams, self.starts, self.first_position = seams, starts, first_position
        self.lengths = np.array([len(ids) for ids in columns["input_ids"]], dtype=np.int64)
        self.padding = {"input_ids": pad_token_id, "token_type_ids": 0}

    @classmethod
    def of(cls, features: Dataset, pad_token_id: int, first_position: int | None = None) -> Tokens:
        """Take the token columns of a tokenised split; without a `first_position`, positions mean nothing."""
        names = [name for name in COLUMNS if name in features.column_names]
        columns = {name: ragged(features, name) for name in names}
        if "seam" not in features.column_names:
            return cls(columns, pad_token_id)
        seams, offsets = (np.asarray(features[name][:]) for name in ("seam", "offset"))
        return cls(columns, pad_token_id, seams, None if first_position is None else offsets, first_position or 0)

    @classmethod
    def joined(cls, parts: list[Tokens]) -> Tokens:
        """Put the rows of several splits behind each other."""
        one = parts[0]
        columns = {name: [row for part in parts for row in part.columns[name]] for name in one.columns}
        seams, starts = (_behind_each_other([getattr(part, name) for part in parts]) for name in ("seams", "starts"))
        return cls(columns, one.padding["input_ids"], seams, starts, one.first_position)

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, indices: np.ndarray) -> Tokens:
        """Take some of the rows."""
        columns = {name: [column[i] for i in indices] for name, column in self.columns.items()}
        seams, starts = (None if each is None else each[indices] for each in (self.seams, self.starts))
        return Tokens(columns, self.padding["input_ids"], seams, starts, self.first_position)

    def parts(self) -> list[Tokens]:
        """Return what the lower layers run over: the first texts and the second, or, without seams, this itself."""
        if self.seams is None:
            return [self]
        return [
            self._sliced([slice(None, seam) for seam in self.seams], None if self.starts is None else 0 * self.starts),
            self._sliced([slice(seam, None) for seam in self.seams], self.starts),
        ]

    def _sliced(self, spans: list[slice], starts: PerRow) -> Tokens:
        columns = {
            name: [row[span] for row, span in zip(column, spans, strict=True)] for name, column in self.columns.items()
        }
        return Tokens(columns, self.padding["input_ids"], None, starts, self.first_position)

    def keys(self) -> np.ndarray:
        """Return the key of each row in any cache, or, shape (rows, 2), those of its two texts."""
        if self.seams is not None:
            return np.stack([part.keys() for part in self.parts()], axis=1)
        columns: Any = self.columns
        return entry_keys(columns["input_ids"], columns.get("token_type_ids"), self.starts)

    def batch(self, indices: np.ndarray) -> dict[str, Tensor]:
        """Return the model's inputs for these rows, padded to the longest.

        They hold positions only where a row need not begin at the first: those of joined texts are the lower layers'.
        """
        lengths = self.lengths[indices]
        inputs = {
            name: padded([column[i] for i in indices], int(lengths.max()), self.padding[name])
            for name, column in self.columns.items()
        }
        real = np.arange(lengths.max())[None] < lengths[:, None]
        if self.starts is not None and self.seams is None:
            positions = self.first_position + self.starts[indices][:, None] + np.arange(lengths.max())
            inputs["position_ids"] = torch.from_numpy(positions * real)  # padding must not run over the last position
        return {**inputs, "attention_mask": torch.from_numpy(real.astype(np.int64))}


def _behind_each_other(parts: list[PerRow]) -> PerRow:
    given = [part for part in parts if part is not None]
    return np.concatenate(given) if given else None


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
    return TokenLabels(ragged(features, "labels")) if head == "token" else torch.tensor(features["labels"][:])


@dataclass
class Split:
    """One split: its tokens, its labels and, where they are cached, its activations."""

    tokens: Tokens
    labels: Tensor | TokenLabels
    cache: ActivationCache | None = None
    where: Locations | None = None
    read: Callable[[Locations], Tensor] | None = None
    """Reads in the place of the cache, where several runs share what is read."""

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
            batch["hidden"] = (self.read or self.cache.read)(self.where[indices])
        elif self.tokens.seams is not None:
            parts = self.tokens.rows(indices).parts()
            batch["parts"] = [part.batch(np.arange(len(part))) for part in parts]
        return batch

    def fetch(self, rows: list[int]) -> None:
        """Have the activations of a later batch brought from the disk, where they are not in memory."""
        if self.cache is not None and self.where is not None:
            self.cache.fetch(self.where[np.asarray(rows)])

    def share(self, rows: list[int], rank: int, world: int) -> dict[str, Any]:
        """Assemble one rank's part of a batch, with the labels of the whole, against which its loss is weighed.

        Every rank takes every step: one for whom no row is left takes the first, without its label.
        """
        batch = self.batch(rows[rank::world] or rows[:1])
        if rank >= len(rows):
            batch["labels"].fill_(IGNORED)
        labels = self.labels[np.asarray(rows)]
        return batch | {"whole": labels.padded() if isinstance(labels, TokenLabels) else labels}


class RecyclingDataModule(LightningDataModule):
    """Serves the splits of one task: `inputs`, `labels`, `indices`, and `hidden` where it is cached.

    Where it is not, and texts are encoded apart, the inputs that the lower layers see are served as `parts`. Tokens are
    always served, too: the layers above the cut need the mask, and relative positions. Where several ranks train, each
    is served its part of every training batch, and every so many-th batch of an evaluation.
    """

    def __init__(self, splits: dict[str, Split], batch_size: int, seed: int, clock: Stopwatch) -> None:
        super().__init__()
        self.splits = splits
        self.batch_size = batch_size
        self.seed = seed
        self.clock = clock
        self.training: Ahead | None = None
        self.state: dict[str, int] | None = None

    def train_dataloader(self) -> DataLoader:
        """Return shuffled, length-bucketed batches; of an interrupted epoch, those that are left."""
        split = self.splits["train"]
        batches = BucketedBatches(split.tokens.lengths, self.batch_size, self.seed)
        rank, world = ranks.rank(), ranks.world()
        serve = split.batch if world == 1 else partial(split.share, rank=rank, world=world)
        self.training = self._loader(split, batches, serve, "read")
        if self.state is not None:
            self.training.load_state_dict(self.state)
        return self.training

    def state_dict(self) -> dict[str, int]:
        """Return where in the epoch training is; Lightning keeps it with its checkpoints."""
        return {} if self.training is None else self.training.state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Keep it for the loader; Lightning restores those itself only if none was needed to count the steps."""
        self.state = state_dict

    def val_dataloader(self) -> DataLoader:
        """Return the dev split."""
        return self._evaluation(self.splits["dev"])

    def test_dataloader(self) -> DataLoader:
        """Return the test split."""
        return self._evaluation(self.splits["test"])

    def _evaluation(self, split: Split) -> DataLoader:
        by_length = np.argsort(split.tokens.lengths, kind="stable")
        batches = [batch.tolist() for batch in batches_of(by_length, self.batch_size)]
        own = batches[ranks.rank() :: ranks.world()] or batches[:1]  # Lightning passes over a rank that has none
        return self._loader(split, own, split.batch, "read_evaluation")

    def _loader(self, split: Split, batches: Any, serve: Callable[[list[int]], Any], phase: str) -> Ahead:
        # In this process: sending activations through workers is ten times slower than reading them. Ahead of a GPU,
        # which computes meanwhile; where the CPU computes, a batch takes 1 % of its step, and a thread gains nothing.
        # And with its own generator, so that a loader never moves the random state that dropout draws from.
        gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        rows: Any = range(len(split.tokens))
        return Ahead(
            rows,
            batch_sampler=batches,
            collate_fn=serve,
            generator=torch.Generator(),
            pin_memory=gpu,
            clock=self.clock,
            phase=phase,
            ahead=AHEAD if gpu else 0,
            fetch=split.fetch,
        )
