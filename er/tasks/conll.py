"""Reader of tagged sentences as CoNLL writes them: a token a line, a blank line behind each sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from er.errors import UserError
from er.tasks import schemes
from er.tasks.readers import Row, lines_of

DOCUMENT = "-DOCSTART-"
"""Begins a document; what else its line says is not read."""


def sentences(path: Path, token: str = "tokens", tag: str = "tags", tagged: bool = True) -> Iterator[Row]:
    """Read each sentence's tokens and tags, the first and the last column of its lines.

    Columns are separated by tabs if the file's first line has one, otherwise by spaces. The columns of
    the result are called `token` and `tag`. Where lines need not be `tagged`, one column is enough, and
    no tag is checked.
    """
    lines: list[list[str]] = []
    width, tabs, number = None, False, 0
    for number, line in enumerate(lines_of(path), start=1):
        line = line.rstrip("\r")
        if not line.strip() or line.startswith(DOCUMENT):
            yield from _sentence(path, number, lines, token, tag)
            lines = []
            continue
        if width is None:
            tabs = "\t" in line
        columns = line.split("\t") if tabs else line.split()
        width = width or len(columns)
        _check(columns, width, f"{path}:{number}", tagged)
        lines.append(columns)
    yield from _sentence(path, number + 1, lines, token, tag)


def _check(columns: list[str], width: int, where: str, tagged: bool) -> None:
    if tagged and len(columns) < 2:
        raise UserError(
            f"{where}: {columns[0][:40]!r} is one column. Write a token and its tag a line, with a tab between "
            "them, and a blank line behind each sentence; JSON lines belong in .jsonl."
        )
    if len(columns) != width:
        raise UserError(f"{where}: {len(columns)} columns, but the lines before it have {width}. Correct the line.")
    if not columns[0].strip():
        raise UserError(f"{where}: the first column, the token, is blank. Write one, or remove the line.")
    if tagged:
        schemes.check(columns[-1], where)


def _sentence(path: Path, end: int, lines: list[list[str]], token: str, tag: str) -> Iterator[Row]:
    if lines:
        tokens, tags = [columns[0] for columns in lines], [columns[-1] for columns in lines]
        yield Row(f"{path}:{end - len(lines)}", {token: tokens, tag: tags})
