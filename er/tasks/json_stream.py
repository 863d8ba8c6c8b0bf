"""JSON of any size, a value at a time: what is in memory is the one value that is being read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from er.errors import UserError

PIECE = 1 << 16
"""Characters that are read at once."""

NEAR = 16
"""So near the end of what was read, nothing is settled: half an escape or a name, `-0` and `.` of -0.5."""

BLANK = " \t\n\r"


def parsed(text: str, path: Path, line: int, expected: str) -> Any:
    """Return the one value of a text that begins in this line; an error says what is `expected`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}:{line + error.lineno - 1}"
        raise UserError(f"{where}: no JSON ({error.msg}, column {error.colno}). {expected}") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; brackets nested 10,000 deep
        raise UserError(f"{path}:{line}: unreadable JSON ({error}). {expected}") from error


class Reading:
    """A place in a JSON text, and so much of what follows as was needed."""

    def __init__(self, file: TextIO, path: Path, expected: str) -> None:
        self._file = file
        self._path = path
        self._expected = expected
        self._text = ""
        self._at = 0
        self._line = 1
        self._column = 1
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """Return the next character that is not blank, or nothing at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in BLANK:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def take(self, character: str) -> None:
        """Go past a character that must come now."""
        if self.peek() != character:
            raise self._error(f"Expecting {character!r}", self._at)
        self._at += 1

    def value(self) -> Any:
        """Return the value that begins here, and go past it."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                unfinished = error.pos + NEAR > len(self._text) or error.msg.startswith("Unterminated")
                if not (unfinished and self._more()):
                    raise self._error(error.msg, error.pos) from error
            except (ValueError, RecursionError) as error:
                raise UserError(f"{self._path}:{self._line}: unreadable JSON ({error}). {self._expected}") from error
            else:
                length = end - self._at
                if end + NEAR <= len(self._text) or not self._more():
                    self._at += length
                    return value

    def items(self) -> Iterator[Any]:
        """Yield the values of a list that begins here."""
        self.take("[")
        if self.peek() == "]":
            self._at += 1
            return
        while True:
            yield self.value()
            if self.peek() == "]":
                self._at += 1
                return
            self.take(",")

    def names(self) -> Iterator[str]:
        """Yield the names in an object that begins here; whoever is given one reads its value before the next."""
        self.take("{")
        if self.peek() == "}":
            self._at += 1
            return
        while True:
            if self.peek() != '"':
                raise self._error("Expecting property name enclosed in double quotes", self._at)
            name = self.value()
            self.take(":")
            yield name
            if self.peek() == "}":
                self._at += 1
                return
            self.take(",")

    def end(self) -> None:
        """Make sure that nothing follows."""
        if self.peek():
            raise self._error("Extra data", self._at)

    def _more(self) -> bool:
        """Read on, as much as there is already, so that a long value is not tried over and over; drop what is past."""
        gone, kept = self._text[: self._at], self._text[self._at :]
        new = self._file.read(max(PIECE, len(kept)))
        lines = gone.count("\n")
        self._line += lines
        self._column = len(gone) - gone.rfind("\n") if lines else self._column + len(gone)
        self._text, self._at = kept + new, 0
        return bool(new)

    def _error(self, reason: str, at: int) -> UserError:
        before = self._text[:at]
        lines = before.count("\n")
        column = at - before.rfind("\n") if lines else self._column + at
        return UserError(f"{self._path}:{self._line + lines}: no JSON ({reason}, column {column}). {self._expected}")
