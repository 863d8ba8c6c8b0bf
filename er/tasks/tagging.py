"""Tagging: a tag for every word of a sentence, read as entities."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from er import config
from er.errors import UserError
from er.tasks import fields, schemes, sentences, sources, splits, tokens, words
from er.tasks.corpus import Corpus
from er.tasks.readers import Reader, Row
from er.tasks.sentences import Example
from er.tasks.task import IGNORED, SPLITS

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

ENTITIES = ("entity_precision", "entity_recall", "entity_f1")
FIGURES = ("precision", "recall", "f1-score", "support")


def load(task: config.Task, data: Path | None) -> Tagging:
    """Read the sentences of a tagging task from wherever the task says they are."""
    if len(task.text) != 1:
        raise UserError(f"task.text={list(task.text)} must name one column, which holds the list of a text's tokens.")
    rows = sources.read(task, data, sentences.readers(task))
    return Tagging(task, {split: list(sentences.tagged(rows[split], task)) for split in rows})


def readers(task: config.Task) -> dict[str, Reader]:
    """Say how new sentences are read: lines may have no tags."""
    return sentences.readers(task, tagged=False)


def unlabelled(task: config.Task, labels: list[str], rows: list[Row]) -> tuple[Tagging, list[int]]:
    """Return new sentences, those that are not blank; one that is a string is cut into words and signs."""
    kept = [i for i, row in enumerate(rows) if not fields.blank(row, task.text[0])]
    return Tagging.of_new(task, labels, [sentences.untagged(rows[i], task.text[0]) for i in kept]), kept


class Tagging(Corpus[Example]):
    """Sentences with a tag a word, normalised to IOB2; the outputs are O and the two tags of every kind of entity.

    A word is tagged at its first piece. A sentence that is too long becomes several windows; each of its
    words is learned and scored once, in the window that shows most on both sides of it.
    """

    head = "token"
    metric = "entity_f1"

    def __init__(self, task: config.Task, given: dict[str, list[Example]]) -> None:
        source = splits.pool(given)
        found = schemes.scheme(example.tags for example in given[source])
        log.info("%s: tags are read as %s", task.name, found)
        given = {split: [_normalised(example, found) for example in given[split]] for split in given}
        kinds = sorted({kind for example in given[source] for kind in _kinds(example)})
        self.labels = ["O", *(f"{letter}-{kind}" for kind in kinds for letter in "BI")]
        self.outputs = len(self.labels)
        if not kinds:
            raise UserError(
                f"{task.name}: no training sentence holds an entity, so there is nothing to learn. Is the last "
                f"column of its files, or task.label={task.label}, the right one?"
            )
        super().__init__(task, given)
        for split, examples in self.examples.items():
            unseen = [(e.where, kind) for e in examples for kind in sorted(_kinds(e) - set(kinds))]
            self.check_unseen(split, "entity", unseen, task.unseen_label)
        self.unscored = frozenset(split for split in SPLITS if not any(map(_kinds, self.examples[split])))
        for split in sorted(self.unscored - {"train"}):
            log.warning("%s: no %s sentence holds an entity, so there is no entity F1 of them", task.name, split)
        self._lengths: dict[str, np.ndarray] = {}
        self._at: dict[str, np.ndarray] = {}

    @classmethod
    def of_new(cls, task: config.Task, labels: list[str], examples: list[Example]) -> Self:
        """Return sentences to be tagged."""
        corpus = super().of_new(task, labels, examples)
        corpus._lengths, corpus._at = {}, {}
        return corpus

    def features(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Dataset]:
        """Turn every split into features; each word's tag stands at its first piece in one of the windows."""
        length = tokens.length_limit(tokenizer, self._task.max_length, pair=False)
        return {split: self._features(split, tokenizer, length) for split in self.examples}

    def _features(self, split: str, tokenizer: PreTrainedTokenizerBase, length: int) -> Dataset:
        """Return the windows of a split, and of each the words that are tagged in it, and where."""
        examples = self.examples[split]
        cut = words.cut(tokenizer, [example.words for example in examples], length, self._task.stride)
        if len(cut.lengths) > len(examples):
            log.info("%s: %d %s sentences in %d windows", self.name, len(examples), split, len(cut.lengths))
        word = np.flatnonzero(cut.window >= 0)
        word = word[np.argsort(cut.window[word], kind="stable")]
        tagged = np.bincount(cut.window[word], minlength=len(cut.lengths))
        labels = np.full(len(cut.ids), IGNORED)
        labels[_starts(cut.lengths)[cut.window[word]] + cut.at[word]] = self._answers(split)[word]
        columns = {"input_ids": cut.ids, "labels": labels}
        if "token_type_ids" in tokenizer.model_input_names:
            columns["token_type_ids"] = np.zeros_like(cut.ids)
        lists = {name: tokens.lists(values, cut.lengths) for name, values in columns.items()}
        lists |= {"word": tokens.lists(word, tagged), "at": tokens.lists(cut.at[word], tagged)}
        return tokens.dataset(lists)

    def _answers(self, split: str) -> np.ndarray:
        """Return the output that each word of a split should have."""
        output = {label: i for i, label in enumerate(self.labels)}
        return np.array([output.get(tag, IGNORED) for example in self.examples[split] for tag in example.tags])

    def take(self, split: str, features: Dataset) -> None:
        """Remember at which of a split's tokens each word is read; -1 where the tokenizer has no piece for it."""
        lengths, tagged = (tokens.lengths(features, name) for name in ("input_ids", "word"))
        word, at = (tokens.flat(features, name) for name in ("word", "at"))
        self._lengths[split] = lengths
        self._at[split] = np.full(sum(len(example.words) for example in self.examples[split]), -1)
        self._at[split][word] = np.repeat(_starts(lengths), tagged) + at

    def score(self, split: str, logits: Sequence[np.ndarray]) -> dict[str, float]:
        """Return precision, recall and F1 of whole entities, if there are any, and the micro and macro F1 of tags.

        The former are seqeval's; the latter, O included, are what the paper's code measured, here on normalised tags.
        """
        from seqeval.metrics.sequence_labeling import precision_recall_fscore_support
        from sklearn.metrics import f1_score

        gold, guess = self._gold(split), self._guess(split, logits)
        figures = precision_recall_fscore_support(gold, guess, average="micro", zero_division=0)
        entities = {} if split in self.unscored else dict(zip(ENTITIES, map(float, figures), strict=False))
        flat, flat_guess = _flat(gold), _flat(guess)
        return {
            **entities,
            "token_micro_f1": float(f1_score(flat, flat_guess, average="micro", zero_division=0.0)),
            "token_macro_f1": float(f1_score(flat, flat_guess, average="macro", zero_division=0.0)),
        }

    def predictions(self, split: str, logits: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """Return for each sentence its index in the split, its tags, and those that are predicted."""
        pairs = zip(self._gold(split), self._guess(split, logits), strict=True)
        return [{"index": index, "label": gold, "prediction": guess} for index, (gold, guess) in enumerate(pairs)]

    def answers(self, split: str, logits: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """Return for each sentence its entities.

        `start` and `end` count the characters of a text that was one string, and else the words.
        """
        examples = self.examples[split]
        return [{"entities": _entities(*pair)} for pair in zip(examples, self._guess(split, logits), strict=True)]

    def details(self, split: str, logits: Sequence[np.ndarray]) -> dict[str, Any]:
        """Return the figures of each kind of entity, and how often which tag (row) was taken for which (column)."""
        from seqeval.metrics.sequence_labeling import precision_recall_fscore_support
        from sklearn.metrics import confusion_matrix

        gold, guess = self._gold(split), self._guess(split, logits)
        kinds = sorted({tag[2:] for tag in _flat([*gold, *guess]) if tag != "O"})
        figures = precision_recall_fscore_support(gold, guess, average=None, zero_division=0)
        rows = zip(*(column.tolist() for column in figures), strict=True)
        names = [*self.labels, *sorted(set(_flat(gold)) - set(self.labels))]
        return {
            "classes": {kind: dict(zip(FIGURES, row, strict=True)) for kind, row in zip(kinds, rows, strict=True)},
            "confusion": {
                "labels": names,
                "matrix": confusion_matrix(_flat(gold), _flat(guess), labels=names).tolist(),
            },
        }

    def _gold(self, split: str) -> list[list[str]]:
        return [list(example.tags) for example in self.examples[split]]

    def _guess(self, split: str, logits: Sequence[np.ndarray]) -> list[list[str]]:
        """Return the likeliest tag of every word; a word that the tokenizer has no piece for is no entity."""
        self.check_logits(split, logits, [(length, self.outputs) for length in self._lengths[split].tolist()])
        best, at = np.concatenate([each.argmax(axis=1) for each in logits]), self._at[split]
        chosen = iter(np.where(at >= 0, best[at], 0).tolist())
        return [[self.labels[next(chosen)] for _ in example.words] for example in self.examples[split]]


def _starts(lengths: np.ndarray) -> np.ndarray:
    starts: np.ndarray = np.cumsum(lengths) - lengths
    return starts


def _normalised(example: Example, scheme: str) -> Example:
    return example._replace(tags=tuple(schemes.iob2(example.tags, scheme)))


def _kinds(example: Example) -> set[str]:
    return {tag[2:] for tag in example.tags if tag != "O"}


def _entities(example: Example, tags: list[str]) -> list[dict[str, Any]]:
    from seqeval.metrics.sequence_labeling import get_entities

    found = []
    for kind, first, last in get_entities(tags):
        start, end = first, last + 1
        if example.spans:
            start, end = example.spans[first][0], example.spans[last][1]
        found.append({"entity": kind, "start": start, "end": end, "text": " ".join(example.words[first : last + 1])})
    return found


def _flat(tags: Iterable[list[str]]) -> list[str]:
    return [tag for sentence in tags for tag in sentence]
