"""Answers to a question: what they say, and where in the passage it is said."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from er.errors import UserError
from er.tasks import fields

Span = tuple[int, int]

FORMS = 'Write {"text": [...], "answer_start": [...]}, or a list of texts to look for in the passage.'


class Answers(NamedTuple):
    """All that counts as right."""

    texts: tuple[str, ...]
    spans: tuple[Span, ...]
    """The characters of the passage that say one of them, the most trusted first."""
    moved: int = 0
    """Answers that stand elsewhere than where they are said to."""
    lost: int = 0
    """Answers that stand nowhere in the passage, though they are said to."""


def read(value: Any, passage: str, where: str) -> Answers:
    """Read a column of answers.

    With offsets they are SQuAD's: `{"text": [...], "answer_start": [...]}`, or a list of objects of one text
    and offset each. Without, they are a text, a list of texts, or TriviaQA's `{"value": ..., "aliases":
    [...]}`; then they are looked for in the passage, whatever their case.
    """
    pairs = [(_text(text, where), _start(start, where)) for text, start in _pairs(value, where)]
    if not pairs:
        raise UserError(f"{where}: the question has no answer. Remove it: only answerable questions are scored.")
    texts = tuple(dict.fromkeys(text.strip() for text, _ in pairs))
    said = [(text, start) for text, start in pairs if start is not None]
    if not said:
        return Answers(texts, matched(texts, passage))
    found = [placed(text, start, passage) for text, start in said]
    spans = tuple(dict.fromkeys(span for span in found if span is not None))
    starts = [start + len(text) - len(text.lstrip()) for text, start in said]
    moved = sum(span is not None and span[0] != start for span, start in zip(found, starts, strict=True))
    return Answers(texts, spans, moved, found.count(None))


def placed(text: str, start: int, passage: str) -> Span | None:
    """Return the characters of the occurrence of `text` that is nearest to `start`, without white space around it."""
    start += len(text) - len(text.lstrip())
    text = text.strip()
    if passage.startswith(text, start):
        return start, start + len(text)
    found = [match.start() for match in re.finditer(f"(?={re.escape(text)})", passage)]
    if not found:
        return None
    nearest = min(found, key=lambda place: abs(place - start))
    return nearest, nearest + len(text)


def matched(texts: tuple[str, ...], passage: str) -> tuple[Span, ...]:
    """Return every place where one of the texts stands as words of its own, whatever its case."""
    longest_first = sorted(texts, key=len, reverse=True)
    pattern = rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)"
    return tuple(match.span() for match in re.finditer(pattern, passage, re.IGNORECASE))


def _pairs(value: Any, where: str) -> list[tuple[Any, Any]]:
    """Return every answer's text and offset, which is None where none is given."""
    pairs: list[tuple[Any, Any]] = []
    for each in _list(value):
        pairs += _of_object(each, where) if isinstance(each, dict) else [(each, None)]
    return pairs


def _of_object(value: dict[str, Any], where: str) -> list[tuple[Any, Any]]:
    if "aliases" in value:
        return [(text, None) for text in [*_list(value.get("value", [])), *_list(value["aliases"])]]
    if "text" not in value:
        raise UserError(f"{where}: the answers have no 'text', but {', '.join(value) or 'nothing'}. {FORMS}")
    texts = _list(value["text"])
    starts = _list(value.get("answer_start", [None] * len(texts)))
    if len(texts) != len(starts):
        raise UserError(f"{where}: {len(texts)} answers but {len(starts)} offsets. {FORMS}")
    return list(zip(texts, starts, strict=True))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: an answer should be text, but is {fields.shown(value)}. {FORMS}")
    return value


def _start(value: Any, where: str) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise UserError(f"{where}: an answer's offset should be a whole number, but is {fields.shown(value)}. {FORMS}")
    return value
