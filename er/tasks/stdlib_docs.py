"""Real text that needs no download: docstrings of Python's own standard library, labelled by package."""

from __future__ import annotations

import ast
import logging
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from er.errors import UserError
from er.tasks.readers import Row, bytes_of

log = logging.getLogger(__name__)

PACKAGES = (
    "asyncio", "collections", "datetime", "email", "http", "importlib", "inspect", "ipaddress", "logging",
    "mailbox", "multiprocessing", "pathlib", "statistics", "tarfile", "threading", "typing", "unittest",
    "urllib", "wsgiref", "xml",
)  # fmt: skip
"""The labels: packages and modules that every CPython from 3.10 on brings along."""

LENGTHS = range(30, 401)
"""How many characters a text may have: shorter ones say too little, longer ones are reference tables."""

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def rows(root: Path | None = None) -> list[Row]:
    """Return the first paragraph of every docstring of `PACKAGES`, with the package's name as `label`.

    A text that two packages share says nothing about either and is left out. `root` is the directory
    of the standard library, by default the running interpreter's.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    places: dict[str, str] = {}
    owners: dict[str, set[str]] = {}
    for package in PACKAGES:
        for place, text in _texts(root, package):
            places.setdefault(text, place)
            owners.setdefault(text, set()).add(package)
    found = [Row(places[text], {"text": text, "label": min(o)}) for text, o in owners.items() if len(o) == 1]
    _check(root, {row.fields["label"] for row in found})
    return found


def _check(root: Path, found: set[str]) -> None:
    missing = [package for package in PACKAGES if package not in found]
    if len(found) < 2:
        raise UserError(
            f"{root}: this Python's standard library has no source to read, so task=stdlib_docs has no "
            "text. Install the full Python, or use task=classification task.path=DIR."
        )
    if missing:
        log.warning("stdlib_docs: no docstrings of %s in %s; these labels are left out", missing, root)


def _texts(root: Path, package: str) -> Iterator[tuple[str, str]]:
    for file in _files(root, package):
        for node in ast.walk(_tree(file)):
            if isinstance(node, DOCUMENTED):
                text = _first_paragraph(ast.get_docstring(node) or "")
                if len(text) in LENGTHS:
                    yield f"{file}:{getattr(node, 'lineno', 1)}", text


def _files(root: Path, package: str) -> list[Path]:
    folder = root / package
    files = [root / f"{package}.py", root / f"_py{package}.py"]  # _pydatetime, since 3.12
    inside = [p for p in folder.rglob("*.py") if not {"test", "tests"} & set(p.relative_to(folder).parts)]
    return sorted([file for file in files if file.is_file()] + inside)


def _tree(file: Path) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in somebody else's strings
            return ast.parse(bytes_of(file), str(file))
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: no valid Python ({error}). Reinstall it, or use another task.") from error


def _first_paragraph(docstring: str) -> str:
    return " ".join(re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0].split())
