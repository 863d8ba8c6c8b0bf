"""What a row's columns hold, checked one by one: an error names the file, the line and the option to set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from er.errors import UserError
from er.tasks.readers import Row


def field(row: Row, column: str, option: str) -> Any:
    """Return what a column holds; `option` is the setting that names it."""
    if column not in row.fields:
        there = ", ".join(map(str, row.fields)) or "no column at all"
        raise UserError(
            f"{row.where}: no column {column!r}, but {there}. Name the right one with task.{option}{_headless(row)}."
        )
    return row.fields[column]


def _headless(row: Row) -> str:
    """What else may be the matter with a table: its first line was no header."""
    table = Path(row.where.rpartition(":")[0]).suffix.lower() in (".csv", ".tsv", ".txt")
    return ", or, if the file has no header, all of them with task.columns=[NAME,...]" if table else ""


def blank(row: Row, column: str) -> bool:
    """Tell whether a column, which must be there, holds no text at all."""
    value = field(row, column, "text")
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def text(row: Row, column: str) -> str:
    """Return a column's text, which is not blank."""
    value = field(row, column, "text")
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{row.where}: column {column!r} should hold text, but is {shown(value)}.")
    return writable(value, row, column)


def label(row: Row, column: str, names: list[str] | None) -> str:
    """Return a column's label; `names` says what the labels 0, 1, ... stand for."""
    value = field(row, column, "label")
    if not isinstance(value, str | int) or not str(value).strip():
        raise UserError(
            f"{row.where}: column {column!r} should hold a label, a name or a whole number, but is {shown(value)}."
        )
    return named(writable(str(value), row, column), names, f"{row.where}: column {column!r}")


def named(value: str, names: list[str] | None, where: str) -> str:
    """Return the name of a label that is given as a number, and any other label as it is."""
    if not names or not (value.isascii() and value.isdecimal()):
        return value
    if len(value) > 9 or int(value) >= len(names):
        raise UserError(f"{where} is {value}, but task.label_names has {len(names)} names, for 0 and up. Add one.")
    return names[int(value)]


def writable(value: str, row: Row, column: str) -> str:
    """Return the value if it can be written as UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair; no tokenizer reads it
        raise UserError(
            f"{row.where}: column {column!r} holds half a character ({error.reason}). Write it as UTF-8."
        ) from error
    return value


def shown(value: Any) -> str:
    """Describe a value that should not be where it is."""
    if isinstance(value, str):
        return repr(value[:40]) if value.strip() else "blank"
    return repr(value) if value is None or isinstance(value, int | float) else f"a {type(value).__name__}"
