"""What tasks of every kind have in common: three splits of examples, made whole, thinned and counted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from er import choices, config
from er.errors import UserError
from er.tasks import kept, splits
from er.tasks.task import NEW

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


class Example(Protocol):
    """What a split holds, whatever the kind."""

    @property
    def where(self) -> str:
        """The file and line that an error should name."""

    @property
    def content(self) -> str:
        """The text: two examples of equal content in train and test are a leak."""

    @property
    def group(self) -> str:
        """What must not be torn apart where one split is taken from another."""

    @property
    def identity(self) -> str:
        """The text and its answer."""


E = TypeVar("E", bound=Example)


class Corpus(Generic[E]):
    """The examples of a task.

    What is missing of the splits is taken from the training data before `task.limit` thins it: a quick look
    is tested on what the real run is tested on.
    """

    labels: list[str]
    outputs: int
    offset: int | None = None
    truncated: int = 0
    unscored: frozenset[str] = frozenset()

    def __init__(self, task: config.Task, given: dict[str, list[E]]) -> None:
        self.name = task.name
        self._task = task
        self.examples, self.origin = splits.complete(task.name, given, lambda example: example.group)
        self.examples["train"] = splits.limited(self.examples["train"], task.limit, lambda example: example.identity)
        self.sizes = {split: len(examples) for split, examples in self.examples.items()}
        self.digest = splits.digest(self.examples, lambda example: example.identity)
        self.leaks = splits.leaks(task.name, self.examples, lambda example: example.content)
        log.info("%s: %s examples", self.name, ", ".join(f"{size:,} {split}" for split, size in self.sizes.items()))

    @classmethod
    def of_new(cls, task: config.Task, labels: list[str], examples: list[E]) -> Self:
        """Return examples to be answered: one split, with nothing to learn from and nothing to measure."""
        corpus = cls.__new__(cls)
        corpus.name, corpus._task, corpus.digest = task.name, task, ""
        corpus.labels, corpus.outputs = labels, len(labels)
        corpus.examples, corpus.sizes = {NEW: examples}, {NEW: len(examples)}
        return corpus

    def tokenize(self, tokenizer: PreTrainedTokenizerBase, store: Path | None = None) -> dict[str, Dataset]:
        """Turn every split into features, unless `store` has them from the last time."""
        settings = {name: value for name, value in asdict(self._task).items() if name not in ("path", "folder")}
        name = None if store is None else kept.key(tokenizer, self.digest, self.labels, settings)
        features = kept.kept(store, name, lambda: self.features(tokenizer))
        for split, rows in features.items():
            self.take(split, rows)
            if "offset" in rows.column_names:
                self.offset = rows["offset"][0]
        return features

    def features(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Dataset]:
        """Turn every split into features, as the kind has them."""
        raise NotImplementedError

    def take(self, split: str, features: Dataset) -> None:
        """Remember of a split's features what their logits are read by; nothing, where each is one example."""

    def check_unseen(
        self, split: str, what: str, found: Sequence[tuple[str, str]], policy: choices.UnseenLabel
    ) -> None:
        """Refuse, or count, what only dev or test has: pairs of a place and a label."""
        if not found:
            return
        names = ", ".join(sorted({repr(label) for _, label in found})[:10])
        where, label = found[0]
        if policy is choices.UnseenLabel.error:
            raise UserError(
                f"{where}: {what} {label!r} never occurs in the training split "
                f"({len(found)} such examples in {split}: {names}). Correct it, or count them as wrong with "
                "task.unseen_label=wrong."
            )
        log.warning(
            "%s: %d of %d %s examples have a %s that training never shows (%s): counted as wrong",
            self.name,
            len(found),
            self.sizes[split],
            split,
            what,
            names,
        )

    def check_logits(self, split: str, logits: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]]) -> None:
        """Refuse logits of another split, and those of a training that diverged."""
        import numpy as np

        found = [each.shape for each in logits]
        if found != list(shapes):
            wrong: Any = [pair for pair in zip(found, shapes, strict=False) if pair[0] != pair[1]][:1]
            raise ValueError(f"{self.name}: {len(found)} logits of {split}, not {len(shapes)}; first misfit: {wrong}.")
        if not all(np.isfinite(each).all() for each in logits):
            raise UserError(f"{self.name}: logits of {split} are not finite: it diverged. Lower optim.lr.")
