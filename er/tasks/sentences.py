"""Tagged sentences: from the rows of a file, or of a hub, to words and their tags."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from er import config
from er.errors import UserError
from er.tasks import conll, fields, schemes
from er.tasks.readers import Reader, Row, json_file, json_lines, parquet

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


def readers(task: config.Task, tagged: bool = True) -> dict[str, Reader]:
    """Say how each suffix is read; new sentences need not be tagged."""
    sentences = partial(conll.sentences, token=task.text[0], tag=task.label, tagged=tagged)
    lines = dict.fromkeys((".conll", ".txt", ".tsv"), sentences)
    return {**lines, ".jsonl": json_lines, ".json": json_file, ".parquet": parquet}


def tagged(rows: list[Row], task: config.Task) -> Iterator[Example]:
    """Return the sentences, each word with its tag."""
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


def untagged(row: Row, column: str) -> Example:
    """Return a new sentence; one that is a string is cut into words and signs."""
    if not isinstance(row.fields[column], str):
        words = tuple(fields.writable(word, row, column) for word in _list(row, column, "text", (str,)))
        return Example(words, ("O",) * len(words), row.where)
    text = fields.text(row, column)
    found = list(WORD.finditer(text))
    spans = tuple(match.span() for match in found)
    return Example(tuple(match.group() for match in found), ("O",) * len(found), row.where, spans)


def _list(row: Row, column: str, option: str, kinds: tuple[type, ...]) -> list[Any]:
    value = fields.field(row, column, option)
    if not isinstance(value, list):
        raise UserError(f"{row.where}: column {column!r} should hold a list, but is {fields.shown(value)}.")
    for each in value:
        if not isinstance(each, kinds):
            raise UserError(f"{row.where}: column {column!r} should hold words only, but holds {fields.shown(each)}.")
    return value
