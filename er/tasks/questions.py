"""Questions on passages: from the rows of a file, or of a hub, to what is asked, of which text, and what is right."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from er import config
from er.errors import UserError
from er.tasks import answers, fields
from er.tasks.answers import Answers
from er.tasks.readers import Row

log = logging.getLogger(__name__)

LOST = 0.1
"""The share of a file's answers that may be missing from their passages before the file is refused."""


class Example(NamedTuple):
    """A question, the passage that answers it, and the answers."""

    id: str
    question: str
    passage: str
    answers: Answers
    where: str

    @property
    def content(self) -> str:
        """The question and the passage."""
        return f"{self.question}\0{self.passage}"

    @property
    def group(self) -> str:
        """The passage: all its questions stay together."""
        return self.passage

    @property
    def identity(self) -> str:
        """The question, the passage and the answers."""
        return "\0".join((self.content, *self.answers.texts, *map(str, self.answers.spans)))


def asked(task: config.Task, row: Row, number: int) -> Example | None:
    """Return a question that nobody has answered, unless it is blank, or its passage."""
    question, *passage = task.text
    text = _passage(row, [column for column in passage if not fields.blank(row, column)])
    if fields.blank(row, question) or not text.strip():
        return None
    return Example(str(number), fields.text(row, question), text, Answers((), ()), row.where)


def answered(task: config.Task, split: str, rows: list[Row]) -> list[Example]:
    """Return the questions of a split; those of train whose passages hold no answer are left out."""
    examples = [_example(row, number, task) for number, row in enumerate(rows)]
    _check_ids(examples)
    _check_lost(task.name, split, examples)
    if split != "train":
        return examples
    kept = [example for example in examples if example.answers.spans]
    if len(kept) < len(examples):
        log.info(
            "%s: %d of %d training questions left out, whose passages hold no answer",
            task.name,
            len(examples) - len(kept),
            len(examples),
        )
    if not kept:
        raise UserError(f"{task.name}: no training passage holds an answer. Is task.label={task.label} right?")
    return kept


def _example(row: Row, number: int, task: config.Task) -> Example:
    question, *passage = task.text
    text = _passage(row, passage)
    if not text.strip():
        raise UserError(f"{row.where}: the passage, column {', '.join(map(repr, passage))}, is blank.")
    given = answers.read(fields.field(row, task.label, "label"), text, row.where)
    for answer in given.texts:
        fields.writable(answer, row, task.label)
    return Example(_id(row, number), fields.text(row, question), text, given, row.where)


def _id(row: Row, number: int) -> str:
    column = next((column for column in ("id", "question_id") if column in row.fields), None)
    if column is None:
        return str(number)
    if row.fields[column] is None:
        raise UserError(f"{row.where}: there is no id in column {column!r}. Give it one, or leave the column out.")
    return str(row.fields[column])


def _passage(row: Row, columns: list[str]) -> str:
    return "\n".join(part for column in columns for part in _texts(row, column))


def _texts(row: Row, column: str) -> list[str]:
    """Read a passage: a text, a list of texts, or TriviaQA's documents, which have theirs in `..._context`."""
    value = fields.field(row, column, "text")
    parts: list[Any] = []
    for each in value if isinstance(value, list) else [value]:
        document = each if isinstance(each, dict) else {"_context": each}
        found = [part for name, part in document.items() if name.endswith("_context")]
        for part in found or [each]:
            parts += part if isinstance(part, list) else [part]
    for part in parts:
        if not isinstance(part, str):
            raise UserError(f"{row.where}: column {column!r} should hold text, but is {fields.shown(part)}.")
        fields.writable(part, row, column)
    return parts


def _check_ids(examples: list[Example]) -> None:
    seen: dict[str, str] = {}
    for example in examples:
        if example.id in seen:
            raise UserError(f"{example.where}: the id {example.id!r} is that of {seen[example.id]}, too. Change one.")
        seen[example.id] = example.where


def _check_lost(name: str, split: str, examples: list[Example]) -> None:
    total = sum(len(example.answers.spans) + example.answers.lost for example in examples)
    moved, lost = (sum(getattr(example.answers, what) for example in examples) for what in ("moved", "lost"))
    if moved or lost:
        log.warning(
            "%s: %d of %d %s answers stand elsewhere than said and were found; %d stand nowhere in their passage",
            name,
            moved,
            total,
            split,
            lost,
        )
    if lost > LOST * total:
        first = next(example for example in examples if example.answers.lost)
        raise UserError(
            f"{first.where}: {first.answers.texts[0]!r} is not in the passage, and so are {lost} of {total} {split} "
            "answers. Is this the passage they were taken from? Correct the texts or remove the questions."
        )
