"""Reader of SQuAD's own JSON: articles, in them paragraphs, in them questions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from er.errors import UserError
from er.tasks.json_stream import Reading
from er.tasks.readers import Row, json_file, opened

SHAPE = 'Write {"data": [{"paragraphs": [{"context": ..., "qas": [{"id": ..., "question": ..., "answers": [...]}]}]}]}.'


def questions(path: Path) -> Iterator[Row]:
    """Read a SQuAD v1.1 file as rows of `id`, `question`, `context` and `answers`; any other `.json` as it is."""
    if not _is_squad(path):
        yield from json_file(path)
        return
    with opened(path) as text:
        file = Reading(text, path, SHAPE)
        for name in file.names():
            if name != "data":
                file.value()
            elif file.peek() == "[":
                yield from _questions(file.items(), str(path))
            else:
                _list(file.value(), f"{path}, data")
        file.end()


def _is_squad(path: Path) -> bool:
    """Tell whether the file is an object that has `data`: a list, or whatever it is if there is nothing else."""
    with opened(path) as text:
        file, there = Reading(text, path, SHAPE), False
        try:
            for name in file.names():
                if name == "data" and file.peek() == "[":
                    return True
                there = there or name == "data"
                file.value()
            return there and not file.peek()
        except UserError:
            return False  # a list, lines of JSON, or an error that the other reader words better


def _questions(articles: Iterator[Any], path: str) -> Iterator[Row]:
    for a, article in enumerate(articles):
        place = f"{path}, data[{a}]"
        for p, paragraph in enumerate(_list(_field(article, "paragraphs", place), f"{place}.paragraphs")):
            at = f"{place}.paragraphs[{p}]"
            context = _field(paragraph, "context", at)
            for q, question in enumerate(_list(_field(paragraph, "qas", at), f"{at}.qas")):
                where = f"{at}.qas[{q}]"
                _field(question, "question", where)
                yield Row(where, {**question, "context": context})


def _field(value: Any, name: str, where: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        raise UserError(f"{where} has no {name!r}. {SHAPE}")
    return value[name]


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{where} is no list. {SHAPE}")
    return value
