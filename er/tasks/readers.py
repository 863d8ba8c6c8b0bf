"""Readers of tables: from a file to its rows, each with the place that an error should name."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from er.errors import UserError
from er.tasks.json_stream import Reading, parsed


class Row(NamedTuple):
    """One record of a source, and where it stands there."""

    where: str
    fields: dict[str, Any]


Reader = Callable[[Path], Iterator[Row]]

LONGEST = 1 << 28
"""Characters of one field of a table: what is longer is a quote that was never closed."""

ROWS = 1024
"""Rows of a parquet file that are in memory at once, or all those of its smallest part if that has more."""

EXPECTED = 'Write one object like {"text": "...", "label": "..."} a line, or in .json a list of them.'


def bytes_of(path: Path) -> bytes:
    """Read a whole file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error


def lines_of(path: Path) -> Iterator[str]:
    """Read the lines of a UTF-8 file one by one, whatever its size, without what ends them."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\n")
                except UnicodeDecodeError as error:
                    raise UserError(
                        f"{path}:{number}: not UTF-8 (byte {line[error.start]:#04x}). Convert the file: iconv -t utf-8."
                    ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """Open a UTF-8 file; a byte order mark is dropped, line ends stay as they are."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError:
        deque(lines_of(path), maxlen=0)  # says in which line
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error


def json_lines(path: Path) -> Iterator[Row]:
    """Read one JSON object a line; blank lines are passed over."""
    for number, line in enumerate(lines_of(path), start=1):
        if line.strip():
            where = f"{path}:{number}"
            yield Row(where, _object(parsed(line, path, number, EXPECTED), where))


def json_file(path: Path) -> Iterator[Row]:
    """Read a list of JSON objects, or, as many `.json` files are, one object a line."""
    with opened(path) as text:
        file = Reading(text, path, EXPECTED)
        if file.peek() == "[":
            for number, value in enumerate(file.items(), start=1):
                where = f"{path}, entry {number}"
                yield Row(where, _object(value, where))
            file.end()
            return
    yield from json_lines(path)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: a JSON {type(value).__name__} instead of an object. {EXPECTED}")
    return value


def csv_table(path: Path, columns: list[str] | None = None) -> Iterator[Row]:
    """Read comma-separated values; a quoted field may hold commas, quotes and line breaks.

    The first line is the header, unless `columns` names the columns.
    """
    return _table(path, columns, delimiter=",", strict=True)


def tsv_table(path: Path, columns: list[str] | None = None) -> Iterator[Row]:
    """Read tab-separated values, one row a line; the first is the header, unless `columns` names the columns.

    Quotes are ordinary characters, as in GLUE: a text that opens with one would otherwise swallow the
    rows after it.
    """
    return _table(path, columns, delimiter="\t", quoting=csv.QUOTE_NONE)


def text_file(path: Path, columns: list[str] | None = None) -> Iterator[Row]:
    """Read a file that may hold either: JSON objects, one a line, or tab-separated values."""
    first = next((line for line in lines_of(path) if line.strip()), "")
    if "\t" in first.strip() and not first.lstrip().startswith("{"):
        return tsv_table(path, columns)
    if first and not first.lstrip().startswith(("{", "[")):
        raise UserError(f"{path}:1: no JSON, and no tab between two columns, such as a text and its label. {EXPECTED}")
    return json_lines(path)


def text_lines(path: Path, column: str, other: Reader) -> Iterator[Row]:
    """Read a text a line; a file whose first line is a JSON object, or has a tab, is read by the `other` reader."""
    first = next((line for line in lines_of(path) if line.strip()), "")
    if "\t" in first.strip() or first.lstrip().startswith("{"):
        yield from other(path)
        return
    for number, line in enumerate(lines_of(path), start=1):
        yield Row(f"{path}:{number}", {column: line.removesuffix("\r")})


def _table(path: Path, columns: list[str] | None, **dialect: Any) -> Iterator[Row]:
    csv.field_size_limit(LONGEST)  # long documents are no mistake
    with opened(path) as text:
        yield from _rows(path, _records(path, csv.reader(text, **dialect)), columns)


def _rows(path: Path, records: Iterator[tuple[str, list[str]]], columns: list[str] | None) -> Iterator[Row]:
    header = columns or next(records, ("", []))[1]
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise UserError(
            f"{path}:1: the header names {', '.join(map(repr, twice))} twice. Rename a column, or, if the file has no "
            "header, name all of them with task.columns=[NAME,...]."
        )
    for where, record in records:
        if len(record) != len(header):
            named = "task.columns" if columns else "the header"
            raise UserError(
                f"{where}: {len(record)} fields, but {named} has {len(header)} ({', '.join(header)}). "
                "A field that holds a separator or a line break must be quoted in .csv and cannot stand in "
                ".tsv; .jsonl holds any text."
            )
        yield Row(where, dict(zip(header, record, strict=True)))


def _records(path: Path, reader: Any) -> Iterator[tuple[str, list[str]]]:
    line = 0
    while True:
        where = f"{path}:{line + 1}"  # where the record begins; it may end on a later line
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{where}: broken quoting or line ends ({error}). Write it as .jsonl.") from error
        if record is None:
            return
        line = reader.line_num
        if len(record) > 1 or any(field.strip() for field in record):
            yield where, record


def parquet(path: Path) -> Iterator[Row]:
    """Read the rows of a parquet file."""
    import pyarrow as pa

    try:
        for number, fields in enumerate(_fields(path), start=1):
            yield Row(f"{path}, row {number}", fields)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not readable as parquet ({reason}). Write the file again.") from error


def _fields(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with path.open("rb") as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=ROWS, use_threads=False):
            yield from batch.to_pylist()


def tables(columns: list[str] | None = None) -> dict[str, Reader]:
    """Say how each suffix is read by the kinds whose examples are rows of a table."""
    return {
        ".jsonl": json_lines,
        ".txt": partial(text_file, columns=columns),
        ".json": json_file,
        ".csv": partial(csv_table, columns=columns),
        ".tsv": partial(tsv_table, columns=columns),
        ".parquet": parquet,
    }
