"""Reader of SQuAD's own JSON: articles, in them paragraphs, in them questions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from er.errors import UserError
from er.tasks.readers import Row, json_file, text_of

SHAPE = 'Write {"data": [{"paragraphs": [{"context": ..., "qas": [{"id": ..., "question": ..., "answers": [...]}]}]}]}.'


def questions(path: Path) -> Iterator[Row]:
    """Read a SQuAD v1.1 file as rows of `id`, `question`, `context` and `answers`; any other `.json` as it is."""
    try:
        whole = json.loads(text_of(path))
    except (ValueError, RecursionError):
        whole = None  # lines of JSON, or an error that the other reader words better
    if isinstance(whole, dict) and "data" in whole:
        yield from _questions(whole["data"], str(path))
    else:
        yield from json_file(path)


def _questions(articles: Any, path: str) -> Iterator[Row]:
    for a, article in enumerate(_list(articles, f"{path}, data")):
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
