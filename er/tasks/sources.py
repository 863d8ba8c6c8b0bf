"""Where a task's rows come from: the package itself, a local directory, or the hub."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from er import config
from er.errors import UserError
from er.tasks.readers import Reader, Row

log = logging.getLogger(__name__)

BUILTINS = {"stdlib_docs": "er.tasks.stdlib_docs"}
"""The module of each text source that comes with the package; it offers `rows()`."""

NAMES = {"train": ("train",), "dev": ("dev", "validation", "valid"), "test": ("test",)}
"""What the file, or the hub's split, may be called."""

MEND = (
    " Set paths.data (or ER_DATA) to the directory that holds the tasks' folders, "
    "or task.path to a directory with train, dev and test files."
)
"""What to do when there is no data."""


def read(task: config.Task, data: Path | None, readers: Mapping[str, Reader]) -> dict[str, list[Row]]:
    """Return the rows of every split that the source has, of one at least.

    `readers` says which suffixes the task's kind can read, and how.
    """
    if task.builtin is not None:
        return {"train": _builtin(task)}
    from er.tasks import hub  # it reads this module

    folder = _folder(task, data)
    if folder is None:
        return hub.read(task)
    files = _files(folder, readers)
    if not files and hub.in_its_form(folder):
        return hub.read(task, folder)
    return {split: _read_file(file, readers) for split, file in _checked(folder, files, readers).items()}


def _builtin(task: config.Task) -> list[Row]:
    if task.path is not None or task.folder is not None:
        raise UserError(
            f"task.builtin={task.builtin} brings its own text, so task.path and task.folder would not be read. "
            "For your own data use task=classification task.path=DIR."
        )
    if task.builtin not in BUILTINS:
        raise UserError(f"task.builtin={task.builtin} is unknown; there is: {', '.join(BUILTINS)}.")
    rows: list[Row] = import_module(BUILTINS[task.builtin]).rows()
    return rows


def _folder(task: config.Task, data: Path | None) -> Path | None:
    """Return the directory to read, or None when the task must come from the hub."""
    local = _local(task.path) if task.path else None
    if data is not None and task.folder:
        folder = data.expanduser() / task.folder
        if local is not None:
            raise UserError(
                f"task.path={task.path} and paths.data={data} both offer data for task={task.name}. "
                "Set task.folder=null to read task.path, or leave task.path alone."
            )
        if not folder.is_dir():
            raise UserError(f"paths.data={data} has no directory {task.folder!r} for task={task.name}.{MEND}")
        return folder
    if not task.path:
        raise UserError(f"task={task.name} has no data.{MEND}")
    if local is not None and local.is_file():
        raise UserError(f"task.path={task.path} is a file. Name the directory that holds it.")
    if local is not None and not local.is_dir():
        raise UserError(f"task.path={task.path}: there is no such directory (seen from {Path.cwd()}).{MEND}")
    return local


def _local(path: str) -> Path | None:
    """Return `path` as a path unless it can only be a hub id, which has one slash at most."""
    local = Path(os.path.expanduser(path))  # Path.expanduser raises for an unknown user
    looks_local = path.startswith((".", "~")) or local.is_absolute() or path.rstrip("/").count("/") > 1
    return local if looks_local or local.exists() else None


def _files(folder: Path, readers: Mapping[str, Reader]) -> dict[str, Path]:
    """Return the file of every split that has one."""
    there = _list(folder)
    files = {split: _file(there, names, readers) for split, names in NAMES.items()}
    return {split: file for split, file in files.items() if file is not None}


def _list(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}). Check its permissions.") from error


def _checked(folder: Path, files: dict[str, Path], readers: Mapping[str, Reader]) -> dict[str, Path]:
    """Refuse files without one to train on, where one that is left over may be meant to be it."""
    there = _list(folder)
    strangers = [path for path in there if path.suffix.lower() in readers and path not in files.values()]
    if "train" not in files and (strangers or not files):
        found = ", ".join(path.name for path in there[:10]) or "nothing"
        raise UserError(f"{folder}: no training file. Expected {_expected('train', readers)}; found {found}.")
    return files


def _file(there: list[Path], names: tuple[str, ...], readers: Mapping[str, Reader]) -> Path | None:
    named = [path for path in there if path.name.split(".")[0] in names and path.is_file()]
    files = [path for path in named if path.stem in names and path.suffix.lower() in readers]
    if len(files) > 1:
        both = " and ".join(path.name for path in files)
        raise UserError(f"{files[0].parent}: {both} both claim to be the {names[0]} split. Remove one.")
    if named and not files:  # passing over it would quietly split something else off the training data
        raise UserError(f"{named[0]}: not readable as data. Convert it to {_expected(names[0], readers)}.")
    return files[0] if files else None


def _expected(name: str, readers: Mapping[str, Reader]) -> str:
    return f"{name} with one of {' '.join(readers)}"


def _read_file(file: Path, readers: Mapping[str, Reader]) -> list[Row]:
    rows = list(readers[file.suffix.lower()](file))
    if not rows:
        raise UserError(f"{file}: holds no examples. Fill it or remove it.")
    log.debug("%s: %d rows", file, len(rows))
    return rows
