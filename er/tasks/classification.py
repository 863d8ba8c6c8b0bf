"""Classification: one label for a text or for a pair of texts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from er import config
from er.errors import UserError
from er.tasks import sources, splits, tokens
from er.tasks.readers import TABLES, Row
from er.tasks.task import IGNORED

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


class Example(NamedTuple):
    """A text, or a pair of texts, and its label."""

    texts: tuple[str, ...]
    label: str
    where: str


def load(task: config.Task, data: Path | None) -> Classification:
    """Read the splits of a classification task from wherever the task says they are."""
    if len(task.text) not in (1, 2):
        raise UserError(f"task.text={list(task.text)} must name one column, or two for a pair of texts.")
    rows = sources.read(task, data, TABLES)
    return Classification(task, {split: [_example(row, task) for row in rows[split]] for split in rows})


def _example(row: Row, task: config.Task) -> Example:
    texts = tuple(_text(row, column) for column in task.text)
    return Example(texts, _label(row, task.label), row.where)


def _text(row: Row, column: str) -> str:
    value = _field(row, column, "text")
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{row.where}: column {column!r} should hold text, but is {_shown(value)}.")
    return _writable(value, row, column)


def _label(row: Row, column: str) -> str:
    value = _field(row, column, "label")
    if not isinstance(value, str | int) or not str(value).strip():
        raise UserError(
            f"{row.where}: column {column!r} should hold a label, a name or a whole number, but is {_shown(value)}."
        )
    return _writable(str(value), row, column)


def _field(row: Row, column: str, option: str) -> Any:
    if column not in row.fields:
        there = ", ".join(map(str, row.fields)) or "no column at all"
        raise UserError(f"{row.where}: no column {column!r}, but {there}. Name the right one with task.{option}.")
    return row.fields[column]


def _writable(value: str, row: Row, column: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair; no tokenizer reads it
        raise UserError(
            f"{row.where}: column {column!r} holds half a character ({error.reason}). Write it as UTF-8."
        ) from error
    return value


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return "blank"
    return repr(value) if value is None or isinstance(value, int | float) else f"a {type(value).__name__}"


def _content(example: Example) -> str:
    return "\0".join(example.texts)


def _identity(example: Example) -> str:
    return "\0".join((*example.texts, example.label))


class Classification:
    """Texts or pairs with one label each.

    The labels are those of the training data as it was given, before `task.limit` and before a missing
    split is taken from it: a quick look has the same outputs as the real run.
    """

    head: str = "sequence"

    def __init__(self, task: config.Task, given: dict[str, list[Example]]) -> None:
        self.name = task.name
        self.labels = sorted({example.label for example in given["train"]})
        self.outputs = len(self.labels)
        if self.outputs < 2:
            raise UserError(
                f"{self.name}: all training examples are labelled {self.labels[0]!r}, so there is nothing to "
                f"learn. Is task.label={task.label} the right column?"
            )
        self.examples, self.origin = splits.complete(self.name, given, _content)
        for split in self.examples:
            self._check_labels(split, task.unseen_label)
        self.examples["train"] = splits.limited(self.examples["train"], task.limit, _identity)
        self.sizes = {split: len(examples) for split, examples in self.examples.items()}
        self.digest = splits.digest(self.examples, _identity)
        self._max_length = task.max_length
        sizes = ", ".join(f"{size:,} {split}" for split, size in self.sizes.items())
        log.info("%s: %s examples, %d labels", self.name, sizes, self.outputs)

    def _check_labels(self, split: str, policy: config.UnseenLabel) -> None:
        known = set(self.labels)
        unseen = [example for example in self.examples[split] if example.label not in known]
        if not unseen:
            return
        names = ", ".join(sorted({repr(example.label) for example in unseen})[:10])
        if policy is config.UnseenLabel.error:
            raise UserError(
                f"{unseen[0].where}: label {unseen[0].label!r} never occurs in the training split "
                f"({len(unseen)} such examples in {split}: {names}). Correct it, or count them as wrong with "
                "task.unseen_label=wrong."
            )
        log.warning(
            "%s: %d of %d %s examples have labels that training never shows (%s): counted as wrong",
            self.name,
            len(unseen),
            len(self.examples[split]),
            split,
            names,
        )

    def tokenize(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Dataset]:
        """Turn every split into features, one an example; longer inputs are truncated, and counted."""
        pair = len(self.examples["train"][0].texts) == 2
        length = tokens.length_limit(tokenizer, self._max_length, pair)
        truncated: Counter[str] = Counter()
        tokenized = {split: self._features(split, tokenizer, length, truncated) for split in self.examples}
        for split, count in (+truncated).items():
            log.info(
                "%s: %d of %d %s inputs truncated to %d tokens", self.name, count, self.sizes[split], split, length
            )
        return tokenized

    def _features(
        self, split: str, tokenizer: PreTrainedTokenizerBase, length: int, truncated: Counter[str]
    ) -> Dataset:
        output = {label: i for i, label in enumerate(self.labels)}
        examples = self.examples[split]

        def encode(batch: tokens.Columns) -> tokens.Columns:
            *texts, labels = batch.values()
            columns, cut = tokens.encoded(tokenizer, texts, length)
            truncated[split] += cut
            return columns | {"labels": labels}

        columns: tokens.Columns = {
            f"text_{i}": [example.texts[i] for example in examples] for i in range(len(examples[0].texts))
        }
        return tokens.features(columns | {"labels": [output.get(e.label, IGNORED) for e in examples]}, encode)

    def score(self, split: str, logits: Sequence[np.ndarray]) -> dict[str, float]:
        """Return accuracy and the micro and macro F1 of a split.

        Macro F1 is the mean over the labels that occur in the split or among the predictions, which is
        what scikit-learn does and what the published numbers are; a label that training never shows
        counts among them with an F1 of 0.
        """
        from sklearn.metrics import accuracy_score, f1_score

        gold = [example.label for example in self.examples[split]]
        guess = [self.labels[i] for i in self._stacked(split, logits).argmax(axis=1)]
        return {
            "accuracy": float(accuracy_score(gold, guess)),
            "micro_f1": float(f1_score(gold, guess, average="micro", zero_division=0.0)),
            "macro_f1": float(f1_score(gold, guess, average="macro", zero_division=0.0)),
        }

    def predictions(self, split: str, logits: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """Return for each example its index in the split, its label, the prediction and its probability."""
        import numpy as np

        scores = self._stacked(split, logits)
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))  # shifted, or a large logit overflows
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        return [
            {
                "index": index,
                "label": example.label,
                "prediction": self.labels[row.argmax()],
                "probability": float(row.max()),
            }
            for index, (example, row) in enumerate(zip(self.examples[split], probabilities, strict=True))
        ]

    def _stacked(self, split: str, logits: Sequence[np.ndarray]) -> np.ndarray:
        """Return the logits as one array of doubles, shape (examples, outputs)."""
        import numpy as np

        stacked = np.asarray(logits, dtype=np.float64)
        expected = (self.sizes[split], self.outputs)
        if stacked.shape != expected:
            raise ValueError(f"{self.name}: logits of {split} have shape {stacked.shape}, not {expected}.")
        if not np.isfinite(stacked).all():
            raise UserError(f"{self.name}: logits of {split} are not finite: it diverged. Lower optim.lr.")
        return stacked
