"""Extractive question answering: which words of a passage answer a question?"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from er import choices, config
from er.errors import UserError
from er.tasks import questions, sources, squad, tokens
from er.tasks.apart import Apart
from er.tasks.corpus import Corpus
from er.tasks.questions import Example
from er.tasks.readers import Reader, Row, tables
from er.tasks.spans import best_span, span_of
from er.tasks.windows import check_tokenizer, question_room, shortened, windows

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


class Prediction(NamedTuple):
    """The best answer of all windows of a passage."""

    text: str
    score: float
    """The sum of the two logits."""
    start: int | None = None
    """Where it begins in the passage."""


def load(task: config.Task, data: Path | None) -> ExtractiveQA:
    """Read the questions from wherever the task says they are."""
    if len(task.text) < 2:
        raise UserError(f"task.text={list(task.text)} must name the column of the question and that of the passage.")
    rows = sources.read(task, data, readers(task))
    return ExtractiveQA(task, {split: questions.answered(task, split, rows[split]) for split in rows})


def readers(task: config.Task) -> dict[str, Reader]:
    """Say how questions are read."""
    return {**tables(task.columns), ".json": squad.questions}


def unlabelled(task: config.Task, labels: list[str], rows: list[Row]) -> tuple[ExtractiveQA, list[int]]:
    """Return new questions, those that are not blank and ask about a passage that is not."""
    asked = [questions.asked(task, row, number) for number, row in enumerate(rows)]
    kept = [i for i, example in enumerate(asked) if example is not None]
    return ExtractiveQA.of_new(task, labels, [example for example in asked if example is not None]), kept


class ExtractiveQA(Corpus[Example]):
    """Questions on passages.

    The question goes first and the passage after it, in windows if it is long. A window without an answer
    has both ends of it at its first token.
    """

    head = "span"
    metric = "f1"

    def __init__(self, task: config.Task, given: dict[str, list[Example]]) -> None:
        super().__init__(task, given)
        self.labels = ["start", "end"]
        self.outputs = 2
        self._owners: dict[str, list[int]] = {}
        self._spans: dict[str, list[np.ndarray]] = {}

    @classmethod
    def of_new(cls, task: config.Task, labels: list[str], examples: list[Example]) -> Self:
        """Return questions to be answered."""
        corpus = super().of_new(task, labels, examples)
        corpus._owners, corpus._spans = {}, {}
        return corpus

    def features(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Dataset]:
        """Turn every split into features, one a window; too long questions are truncated, and counted."""
        check_tokenizer(self.name, tokenizer)
        length = tokens.length_limit(tokenizer, self._task.max_length, pair=True)
        most = question_room(tokenizer, length)
        if not most:
            raise UserError(f"task.max_length={self._task.max_length} leaves no room for a question. Raise it.")
        if self._task.encode is choices.Encode.separate:
            asked = [example.question for examples in self.examples.values() for example in examples]
            apart = Apart.of(self._task, tokenizer, length, most, asked)
            return {split: self._features_apart(split, apart) for split in self.examples}
        return {split: self._features(split, tokenizer, length) for split in self.examples}

    def _features(self, split: str, tokenizer: PreTrainedTokenizerBase, length: int) -> Dataset:
        examples = self.examples[split]

        def encode(batch: tokens.Columns) -> tokens.Columns:
            chosen = [examples[i] for i in batch["index"]]
            texts = [batch["question"], [example.passage for example in chosen]]
            cut = windows(tokenizer, texts, length, self._task.stride, self._task.max_windows)
            labels = [span_of(s, chosen[i].answers.spans) for s, i in zip(cut.spans, cut.owners, strict=True)]
            owners = [batch["index"][owner] for owner in cut.owners]
            return cut.columns | {"labels": labels, "owner": owners, **_ends(cut.spans)}

        most = question_room(tokenizer, length)
        asked = shortened(tokenizer, [example.question for example in examples], most)
        cut = sum(short != example.question for short, example in zip(asked, examples, strict=True))
        features = tokens.features({"index": list(range(len(examples))), "question": asked}, encode)
        self._tell(split, len(features), cut, most)
        return features

    def _features_apart(self, split: str, apart: Apart) -> Dataset:
        """As `_features`, but a passage's windows are the same for all its questions."""
        examples = self.examples[split]
        passages = list(dict.fromkeys(example.passage for example in examples))
        asked, cut_short = apart.firsts([example.question for example in examples])
        cut = apart.windows(passages, self._task.stride, self._task.max_windows)
        of_passage: dict[str, list[int]] = {passage: [] for passage in passages}
        for window, owner in enumerate(cut.owners):
            of_passage[passages[owner]].append(window)
        pairs = [(i, window) for i, example in enumerate(examples) for window in of_passage[example.passage]]
        columns = apart.joined(asked, cut.columns, pairs)
        seams = zip(columns["seam"], pairs, strict=True)
        spans = [np.pad(cut.spans[window], ((seam, 0), (0, 0))) for seam, (_, window) in seams]
        labels = [span_of(each, examples[i].answers.spans) for each, (i, _) in zip(spans, pairs, strict=True)]
        self._tell(split, len(labels), cut_short, apart.most)
        return tokens.dataset(columns | {"labels": labels, "owner": [i for i, _ in pairs], **_ends(spans)})

    def take(self, split: str, features: Dataset) -> None:
        """Remember whose window each feature is, and which characters its tokens stand for."""
        begins, ends = (tokens.ragged(features, name) for name in ("begins", "ends"))
        self._owners[split] = features["owner"][:]
        self._spans[split] = [np.stack(each, axis=1) for each in zip(begins, ends, strict=True)]

    def _tell(self, split: str, count: int, cut: int, most: int) -> None:
        log.info("%s: %d %s questions in %d windows", self.name, self.sizes[split], split, count)
        self.truncated += cut
        if cut:
            log.info("%s: %d %s questions truncated to %d tokens", self.name, cut, split, most)

    def score(self, split: str, logits: Sequence[np.ndarray]) -> dict[str, float]:
        """Return SQuAD v1.1's exact match and F1: the mean over questions of the best over their answers."""
        rows = self.predictions(split, logits)
        return {name: sum(row[name] for row in rows) / len(rows) for name in ("em", "f1")}

    def predictions(self, split: str, logits: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """Return for each question its index, its id, the right answers, the predicted one, and its scores."""
        records = []
        guesses = self._guess(split, logits)
        for index, (example, guess) in enumerate(zip(self.examples[split], guesses, strict=True)):
            em, f1 = agreement(guess.text, example.answers.texts)
            given = {"index": index, "id": example.id, "label": list(example.answers.texts)}
            records.append(given | {"prediction": guess.text, "score": guess.score, "em": em, "f1": f1})
        return records

    def answers(self, split: str, logits: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """Return for each question the answer, its score, and its characters in the passage."""
        return [
            {"answer": guess.text, "score": guess.score, "start": guess.start, "end": guess.start + len(guess.text)}
            if guess.start is not None
            else {"answer": None, "score": None, "start": None, "end": None}
            for guess in self._guess(split, logits)
        ]

    def details(self, split: str, logits: Sequence[np.ndarray]) -> dict[str, Any]:
        """Return how many questions have an answer within one window and of allowed length: no other can be right."""
        reachable = set()
        for owner, spans in zip(self._owners[split], self._spans[split], strict=True):
            first, last = span_of(spans, self.examples[split][owner].answers.spans)
            if last > 0 and last - first < self._task.max_answer:
                reachable.add(owner)
        return {
            "questions": self.sizes[split],
            "windows": len(self._owners[split]),
            "reachable": len(reachable),
            "scores": self.score(split, logits),
        }

    def _guess(self, split: str, logits: Sequence[np.ndarray]) -> list[Prediction]:
        spans, examples = self._spans[split], self.examples[split]
        self.check_logits(split, logits, [(len(each), self.outputs) for each in spans])
        best = [Prediction("", float("-inf"))] * len(examples)
        for owner, each, scores in zip(self._owners[split], spans, logits, strict=True):
            found = best_span(each, scores, self._task.max_answer)
            if found is not None and found.score > best[owner].score:
                said = examples[owner].passage[found.start : found.end]
                start = found.start + len(said) - len(said.lstrip())
                best[owner] = Prediction(said.strip(), found.score, start)
        return [guess if guess.text else Prediction("", 0.0) for guess in best]


def _ends(spans: list[np.ndarray]) -> tokens.Columns:
    return {"begins": [each[:, 0] for each in spans], "ends": [each[:, 1] for each in spans]}


def agreement(prediction: str, texts: Sequence[str]) -> tuple[float, float]:
    """Return SQuAD v1.1's exact match and F1 of one prediction, 0 to 1, with the best of the right answers."""
    from torchmetrics.functional.text import squad as measure

    target: Any = {"id": "", "answers": {"text": list(texts), "answer_start": [0] * len(texts)}}
    scores = measure({"id": "", "prediction_text": prediction}, target)
    return float(scores["exact_match"]) / 100, float(scores["f1"]) / 100
