"""Tagging: a tag for every word of a sentence, read as entities."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from er import config
from er.errors import UserError
from er.tasks import conll, fields, schemes, sources, splits, tokens
from er.tasks.corpus import Corpus
from er.tasks.placing import places
from er.tasks.readers import Reader, Row, json_file, json_lines, parquet
from er.tasks.task import IGNORED
from er.tasks.windows import Windows, check_tokenizer, windows

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

WORD = re.compile(r"\w+|[^\w\s]")
"""How a text that is not cut into words is cut: tagged corpora have signs by themselves, too."""


class Example(NamedTuple):
    """A sentence: its words and their tags."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    where: str
    spans: tuple[tuple[int, int], ...] = ()
    """The characters of each word, where the text was one string."""

    @property
    def content(self) -> str:
        """The words."""
        return "\0".join(self.words)

    @property
    def group(self) -> str:
        """The words: equal sentences stay together."""
        return self.content

    @property
    def identity(self) -> str:
        """The words and the tags."""
        return "\0".join((*self.words, *self.tags))


def load(task: config.Task, data: Path | None) -> Tagging:
    """Read the sentences of a tagging task from wherever the task says they are."""
    if len(task.text) != 1:
        raise UserError(f"task.text={list(task.text)} must name one column, which holds the list of a text's tokens.")
    rows = sources.read(task, data, _readers(task))
    return Tagging(task, {split: list(_examples(rows[split], task)) for split in rows})


def readers(task: config.Task) -> dict[str, Reader]:
    """Say how new sentences are read: lines may have no tags."""
    return _readers(task, tagged=False)


def unlabelled(task: config.Task, labels: list[str], rows: list[Row]) -> tuple[Tagging, list[int]]:
    """Return new sentences, those that are not blank; one that is a string is cut into words and signs."""
    kept = [i for i, row in enumerate(rows) if not fields.blank(row, task.text[0])]
    return Tagging.of_new(task, labels, [_untagged(rows[i], task.text[0]) for i in kept]), kept


def _untagged(row: Row, column: str) -> Example:
    if not isinstance(row.fields[column], str):
        words = tuple(fields.writable(word, row, column) for word in _list(row, column, "text", (str,)))
        return Example(words, ("O",) * len(words), row.where)
    text = fields.text(row, column)
    found = list(WORD.finditer(text))
    spans = tuple(match.span() for match in found)
    return Example(tuple(match.group() for match in found), ("O",) * len(found), row.where, spans)


def _readers(task: config.Task, tagged: bool = True) -> dict[str, Reader]:
    sentences = partial(conll.sentences, token=task.text[0], tag=task.label, tagged=tagged)
    lines = dict.fromkeys((".conll", ".txt", ".tsv"), sentences)
    return {**lines, ".jsonl": json_lines, ".json": json_file, ".parquet": parquet}


def _examples(rows: list[Row], task: config.Task) -> Iterator[Example]:
    for row in rows:
        words = [fields.writable(word, row, task.text[0]) for word in _list(row, task.text[0], "text", (str,))]
        given = [str(tag) for tag in _list(row, task.label, "label", (str, int))]
        tags = [fields.named(tag, task.label_names, row.where) for tag in given]
        if len(words) != len(tags):
            raise UserError(f"{row.where}: {len(words)} tokens but {len(tags)} tags. Give each token its tag.")
        for tag in tags:
            if tag.isdecimal() and not task.label_names:
                raise UserError(
                    f"{row.where}: {tag[:40]!r} is no tag. Say what the numbers stand for: task.label_names=[O,...]."
                )
            schemes.check(fields.writable(tag, row, task.label), row.where)
        if words:  # some sets have empty sentences: nothing to learn, nothing to score
            yield Example(tuple(words), tuple(tags), row.where)


def _list(row: Row, column: str, option: str, kinds: tuple[type, ...]) -> list[Any]:
    value = fields.field(row, column, option)
    if not isinstance(value, list):
        raise UserError(f"{row.where}: column {column!r} should hold a list, but is {fields.shown(value)}.")
    for each in value:
        if not isinstance(each, kinds):
            raise UserError(f"{row.where}: column {column!r} should hold words only, but holds {fields.shown(each)}.")
    return value


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
        self._lengths: dict[str, list[int]] = {}
        self._places: dict[str, list[np.ndarray]] = {}

    @classmethod
    def of_new(cls, task: config.Task, labels: list[str], examples: list[Example]) -> Self:
        """Return sentences to be tagged."""
        corpus = super().of_new(task, labels, examples)
        corpus._lengths, corpus._places = {}, {}
        return corpus

    def features(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Dataset]:
        """Turn every split into features; each word's tag stands at its first piece in one of the windows."""
        check_tokenizer(self.name, tokenizer)
        length = tokens.length_limit(tokenizer, self._task.max_length, pair=False)
        return {split: self._features(split, tokenizer, length) for split in self.examples}

    def _features(self, split: str, tokenizer: PreTrainedTokenizerBase, length: int) -> Dataset:
        def encode(batch: tokens.Columns) -> tokens.Columns:
            texts = [" ".join(words) for words in batch["words"]]
            cut = windows(tokenizer, [texts], length, self._task.stride)
            found = list(places(cut, batch["words"]))
            labels = self._labels(cut, found, batch["tags"])
            return cut.columns | {"labels": labels} | _placed(cut, found, batch["index"])

        examples = self.examples[split]
        columns: tokens.Columns = {
            "index": list(range(len(examples))),
            "words": [list(e.words) for e in examples],
            "tags": [list(e.tags) for e in examples],
        }
        features = tokens.features(columns, encode)
        if len(features) > len(examples):
            log.info("%s: %d %s sentences in %d windows", self.name, len(examples), split, len(features))
        return features

    def take(self, split: str, features: Dataset) -> None:
        """Remember in which window, and where in it, each word of each sentence is read."""
        columns = (tokens.ragged(features, name) for name in ("input_ids", "word", "at"))
        self._places[split] = [np.full((len(e.words), 2), -1, dtype=np.int64) for e in self.examples[split]]
        self._lengths[split] = []
        for window, (sentence, ids, words, at) in enumerate(zip(features["sentence"][:], *columns, strict=True)):
            self._lengths[split].append(len(ids))
            self._places[split][sentence][words] = np.stack([np.full(len(at), window), at], axis=1)

    def _labels(self, cut: Windows, found: list[np.ndarray], tags: list[list[str]]) -> list[np.ndarray]:
        output = {label: i for i, label in enumerate(self.labels)}
        labels = [np.full(len(spans), IGNORED) for spans in cut.spans]
        for where, names in zip(found, tags, strict=True):
            numbers = np.array([output.get(name, IGNORED) for name in names])
            for window in set(where[:, 0].tolist()) - {-1}:
                here = where[:, 0] == window
                labels[window][where[here, 1]] = numbers[here]
        return labels

    def score(self, split: str, logits: Sequence[np.ndarray]) -> dict[str, float]:
        """Return precision, recall and F1 of whole entities, and the micro and macro F1 of tags, O included.

        The former are seqeval's; the latter are what the paper's code measured, here on normalised tags.
        """
        from seqeval.metrics.sequence_labeling import precision_recall_fscore_support
        from sklearn.metrics import f1_score

        gold, guess = self._gold(split), self._guess(split, logits)
        precision, recall, f1, _ = precision_recall_fscore_support(gold, guess, average="micro", zero_division=0)
        flat, flat_guess = _flat(gold), _flat(guess)
        return {
            "entity_precision": float(precision),
            "entity_recall": float(recall),
            "entity_f1": float(f1),
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
        from seqeval.metrics import classification_report
        from sklearn.metrics import confusion_matrix

        gold, guess = self._gold(split), self._guess(split, logits)
        report = classification_report(gold, guess, output_dict=True, zero_division=0)
        names = [*self.labels, *sorted(set(_flat(gold)) - set(self.labels))]
        return {
            "classes": {kind: {name: float(figure) for name, figure in each.items()} for kind, each in report.items()},
            "confusion": {
                "labels": names,
                "matrix": confusion_matrix(_flat(gold), _flat(guess), labels=names).tolist(),
            },
        }

    def _gold(self, split: str) -> list[list[str]]:
        return [list(example.tags) for example in self.examples[split]]

    def _guess(self, split: str, logits: Sequence[np.ndarray]) -> list[list[str]]:
        """Return the likeliest tag of every word; a word that the tokenizer has no piece for is no entity."""
        lengths = self._lengths[split]
        self.check_logits(split, logits, [(length, self.outputs) for length in lengths])
        best = np.concatenate([each.argmax(axis=1) for each in logits])
        starts = np.concatenate([[0], np.cumsum(lengths)])
        placed = self._places[split]
        flat = np.concatenate(placed)
        chosen = np.where(flat[:, 0] >= 0, best[starts[flat[:, 0]] + flat[:, 1]], 0)
        ends = np.cumsum([0, *map(len, placed)])
        return [[self.labels[i] for i in chosen[start:end]] for start, end in pairwise(ends)]


def _placed(cut: Windows, found: list[np.ndarray], sentences: list[int]) -> tokens.Columns:
    """For each window: the sentence it is of, which of its words are read here, and at which token."""
    windows_of = np.concatenate([each[:, 0] for each in found])
    words = np.concatenate([np.arange(len(each)) for each in found])
    order = np.argsort(windows_of, kind="stable")
    starts = np.searchsorted(windows_of[order], np.arange(len(cut.owners) + 1))
    at = np.concatenate([each[:, 1] for each in found])
    parts = [order[begin:end] for begin, end in pairwise(starts)]
    return {
        "sentence": [sentences[owner] for owner in cut.owners],
        "word": [words[part] for part in parts],
        "at": [at[part] for part in parts],
    }


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
