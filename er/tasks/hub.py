"""Data sets of the Hugging Face hub, and folders in its form."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from er import config
from er.errors import UserError
from er.tasks.readers import Row
from er.tasks.sources import MEND, NAMES
from er.tasks.tokens import quiet

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

log = logging.getLogger(__name__)


SAVED = ("dataset_dict.json", "state.json")
"""What tells a folder that `datasets` itself has saved: several splits, or one."""

MARKS = (*SAVED, "data/*", "train/*", "*-of-*.*", "*/*-of-*.*")
"""What is found in a folder in the hub's form, whatever its files are called."""

CARD = re.compile(r"---\s*\n(?:(?!---).*\n)*?(?:configs|dataset_info):")
"""The head of a `README.md` that says which files are which split."""


def in_its_form(folder: Path) -> bool:
    """Tell whether a folder is a clone of a hub data set, or one that `datasets` has saved."""
    card = folder / "README.md"
    return any(next(folder.glob(mark), None) for mark in MARKS) or (
        card.is_file() and CARD.match(card.read_text("utf-8", errors="replace")) is not None
    )


def read(task: config.Task, folder: Path | None = None) -> dict[str, list[Row]]:
    """Load a data set of the hub, or a folder in its form; columns appear as `task.text` and `task.label` name them."""
    columns = _columns(task)
    place = str(folder or task.path)
    loaded = _from_hub(task) if folder is None else _from_folder(folder, task.config)
    found = task.hub_splits or {split: name for split, names in NAMES.items() for name in names if name in loaded}
    if unknown := found.keys() - NAMES.keys():
        raise UserError(f"task.hub_splits names {', '.join(sorted(unknown))}; there are only train, dev and test.")
    for name in ({"train": "train"} | found).values():
        if name not in loaded or "train" not in found:
            raise UserError(
                f"{place} has no split {name!r}, only: {', '.join(loaded)}. "
                "Say which is which with task.hub_splits={train: NAME, dev: NAME, test: NAME}."
            )
    return {split: _rows(f"{place}[{name}]", loaded[name], columns) for split, name in found.items()}


def _columns(task: config.Task) -> dict[str, str]:
    """Map the hub's names of the text and label columns to the task's own."""
    text = task.hub_text or task.text
    if len(text) != len(task.text):
        raise UserError(f"task.hub_text={text} must name as many columns as task.text={task.text}.")
    return dict(zip([*text, task.hub_label or task.label], [*task.text, task.label], strict=True))


def _from_hub(task: config.Task) -> DatasetDict:
    from datasets import load_dataset

    log.info("%s: asking the hub for %s", task.name, task.path)
    try:
        with quiet(), _patient():
            return load_dataset(task.path, task.config, revision=task.revision)
    except Exception as error:  # the hub's client, its HTTP library and the file formats each raise their own
        raise UserError(
            f"task.path={task.path} is no directory here, and the hub did not give it: {_reason(error)}.{MEND}"
        ) from error


def _from_folder(folder: Path, name: str | None) -> DatasetDict:
    from datasets import DatasetDict, load_dataset, load_from_disk

    try:
        with quiet():
            if not any((folder / mark).is_file() for mark in SAVED):
                return load_dataset(str(folder), name)
            saved = load_from_disk(str(folder))
            return saved if isinstance(saved, DatasetDict) else DatasetDict({"train": saved})
    except Exception as error:  # every file format raises its own
        raise UserError(
            f"{folder}: `datasets` cannot read it: {_reason(error)}. Choose one of several configurations with "
            "task.config, or put train, dev and test files straight into the folder."
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


@contextmanager
def _patient() -> Iterator[None]:
    """Keep the hub client's retries, but not the paragraph that it logs about each."""
    client = logging.getLogger("huggingface_hub")
    level = client.level
    client.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.setLevel(level)


def _rows(where: str, split: Dataset, columns: dict[str, str]) -> list[Row]:
    from datasets import ClassLabel

    if missing := [name for name in columns if name not in split.column_names]:
        raise UserError(
            f"{where}: no column {', '.join(map(repr, missing))}; it has: {', '.join(split.column_names)}. "
            "Set task.hub_text and task.hub_label."
        )
    kinds = {name: getattr(split.features[name], "feature", split.features[name]) for name in columns}  # a list's too
    classes = {name: kind.names for name, kind in kinds.items() if isinstance(kind, ClassLabel)}
    rows = []
    for number, fields in enumerate(split.to_list(), start=1):
        place = f"{where}, row {number}"
        for name, names in classes.items():
            fields[name] = _named(fields[name], names, f"{place}: column {name!r}")
        rows.append(Row(place, fields | {ours: fields[theirs] for theirs, ours in columns.items()}))
    if not rows:
        raise UserError(f"{where}: holds no examples. Choose another data set or revision.")
    return rows


def _named(value: int | list[int] | None, names: list[str], where: str) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return [_named(each, names, where) for each in value]
    if not 0 <= value < len(names):
        raise UserError(
            f"{where} is {value}, which stands for no class: the hub hides the answers of this split. "
            "Name the others with task.hub_splits, or save the labelled examples as local files and set task.path."
        )
    return names[value]
