"""Classification: one label for a text or for a pair of texts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from er import choices, config
from er.errors import UserError
from er.tasks import fields, sources, splits, tokens
from er.tasks.apart import Apart
from er.tasks.corpus import Corpus
from er.tasks.readers import Reader, Row, tables, text_lines
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

    @property
    def content(self) -> str:
        """The text or texts."""
        return "\0".join(self.texts)

    @property
    def group(self) -> str:
        """The texts: equal ones stay together."""
        return self.content

    @property
    def identity(self) -> str:
        """The texts and the label."""
        return "\0".join((*self.texts, self.label))


def load(task: config.Task, data: Path | None) -> Classification:
    """Read the splits of a classification task from wherever the task says they are."""
    pair = task.kind is choices.Kind.pair_classification
    if len(task.text) not in ((2,) if pair else (1, 2)):
        wanted = "the two columns of a pair" if pair else "one column, or two for a pair of texts"
        raise UserError(f"task.text={list(task.text)} must name {wanted}.")
    rows = sources.read(task, data, tables(task.columns))
    return Classification(task, {split: [_example(row, task) for row in rows[split]] for split in rows})


def _example(row: Row, task: config.Task) -> Example:
    texts = tuple(fields.text(row, column) for column in task.text)
    return Example(texts, fields.label(row, task.label, task.label_names), row.where)


def readers(task: config.Task) -> dict[str, Reader]:
    """Say how new texts are read: a `.txt` may also hold a text a line."""
    known = tables(task.columns)
    return (
        known
        if len(task.text) == 2
        else known | {".txt": partial(text_lines, column=task.text[0], other=known[".txt"])}
    )


def unlabelled(task: config.Task, labels: list[str], rows: list[Row]) -> tuple[Classification, list[int]]:
    """Return new texts, those that are not blank."""
    kept = [i for i, row in enumerate(rows) if not any(fields.blank(row, column) for column in task.text)]
    texts = [tuple(fields.text(rows[i], column) for column in task.text) for i in kept]
    examples = [Example(each, "", rows[i].where) for each, i in zip(texts, kept, strict=True)]
    return Classification.of_new(task, labels, examples), kept


class Classification(Corpus[Example]):
    """Texts or pairs with one label each.

    The labels are those of the training data as it was given, before `task.limit` and before a missing
    split is taken from it: a quick look has the same outputs as the real run.
    """

    head = "sequence"
    metric = "macro_f1"

    def __init__(self, task: config.Task, given: dict[str, list[Example]]) -> None:
        self.labels = sorted({example.label for example in given[splits.pool(given)]})
        self.outputs = len(self.labels)
        if self.outputs < 2:
            raise UserError(
                f"{task.name}: all training examples are labelled {self.labels[0]!r}, so there is nothing to "
                f"learn. Is task.label={task.label} the right column?"
            )
        super().__init__(task, given)
        for split, examples in self.examples.items():
            unseen = [(e.where, e.label) for e in examples if e.label not in self.labels]
            self.check_unseen(split, "label", unseen, task.unseen_label)

    def features(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Dataset]:
        """Turn every split into features, one an example; longer inputs are truncated, and counted."""
        pair = len(self._task.text) == 2
        length = tokens.length_limit(tokenizer, self._task.max_length, pair)
        if self._task.encode is choices.Encode.separate:
            firsts = [example.texts[0] for examples in self.examples.values() for example in examples]
            half = (length - int(tokenizer.num_special_tokens_to_add(True))) // 2
            apart = Apart.of(self._task, tokenizer, length, half, firsts)
            return {split: self._features_apart(split, apart) for split in self.examples}
        truncated: Counter[str] = Counter()
        tokenized = {split: self._features(split, tokenizer, length, truncated) for split in self.examples}
        self.truncated = truncated.total()
        for split, count in (+truncated).items():
            log.info(
                "%s: %d of %d %s inputs truncated to %d tokens", self.name, count, self.sizes[split], split, length
            )
        return tokenized

    def _features_apart(self, split: str, apart: Apart) -> Dataset:
        """As `_features`, but each text keeps to its own side of the offset."""
        examples = self.examples[split]
        firsts, shortened = apart.firsts([example.texts[0] for example in examples])
        seconds, cut = apart.seconds([example.texts[1] for example in examples])
        self.truncated += shortened + cut
        if shortened or cut:
            log.info("%s: %d first and %d second %s texts truncated", self.name, shortened, cut, split)
        columns = apart.joined(firsts, seconds, ((i, i) for i in range(len(examples))))
        return tokens.dataset(columns | {"labels": self._answers(split)})

    def _features(
        self, split: str, tokenizer: PreTrainedTokenizerBase, length: int, truncated: Counter[str]
    ) -> Dataset:
        examples = self.examples[split]

        def encode(batch: tokens.Columns) -> tokens.Columns:
            *texts, labels = batch.values()
            columns, cut = tokens.encoded(tokenizer, texts, length)
            truncated[split] += cut
            return columns | {"labels": labels}

        columns: tokens.Columns = {
            f"text_{i}": [example.texts[i] for example in examples] for i in range(len(examples[0].texts))
        }
        return tokens.features(columns | {"labels": self._answers(split)}, encode)

    def _answers(self, split: str) -> list[int]:
        output = {label: i for i, label in enumerate(self.labels)}
        return [output.get(example.label, IGNORED) for example in self.examples[split]]

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
        probabilities = self._probabilities(split, logits)
        return [
            {
                "index": index,
                "label": example.label,
                "prediction": self.labels[row.argmax()],
                "probability": float(row.max()),
            }
            for index, (example, row) in enumerate(zip(self.examples[split], probabilities, strict=True))
        ]

    def answers(self, split: str, logits: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """Return for each text its label, and the probability of every label."""
        return [
            {
                "label": self.labels[row.argmax()],
                "probability": float(row.max()),
                "probabilities": dict(zip(self.labels, row.tolist(), strict=True)),
            }
            for row in self._probabilities(split, logits)
        ]

    def details(self, split: str, logits: Sequence[np.ndarray]) -> dict[str, Any]:
        """Return the figures of each label, and how often which label (row) was taken for which (column)."""
        from sklearn.metrics import classification_report, confusion_matrix

        gold = [example.label for example in self.examples[split]]
        guess = [self.labels[i] for i in self._stacked(split, logits).argmax(axis=1)]
        names = sorted({*self.labels, *gold})
        report = classification_report(gold, guess, labels=names, output_dict=True, zero_division=0.0)
        return {
            "classes": {name: report[name] for name in names},
            "confusion": {"labels": names, "matrix": confusion_matrix(gold, guess, labels=names).tolist()},
        }

    def _probabilities(self, split: str, logits: Sequence[np.ndarray]) -> np.ndarray:
        import numpy as np

        scores = self._stacked(split, logits)
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))  # shifted, or a large logit overflows
        probabilities: np.ndarray = odds / odds.sum(axis=1, keepdims=True)
        return probabilities

    def _stacked(self, split: str, logits: Sequence[np.ndarray]) -> np.ndarray:
        """Return the logits as one array of doubles, shape (examples, outputs)."""
        import numpy as np

        self.check_logits(split, logits, [(self.outputs,)] * self.sizes[split])
        return np.asarray(logits, dtype=np.float64)
