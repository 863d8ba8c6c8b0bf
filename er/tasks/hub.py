"""Data sets of the Hugging Face hub."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from er import config
from er.errors import UserError
from er.tasks.readers import Row
from er.tasks.sources import MEND, NAMES
from er.tasks.tokens import quiet

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

log = logging.getLogger(__name__)


def read(task: config.Task) -> dict[str, list[Row]]:
    """Load a hub data set; its columns appear under the names that `task.text` and `task.label` give."""
    columns = _columns(task)
    loaded = _loaded(task)
    found = task.hub_splits or {split: name for split, names in NAMES.items() for name in names if name in loaded}
    if unknown := found.keys() - NAMES.keys():
        raise UserError(f"task.hub_splits names {', '.join(sorted(unknown))}; there are only train, dev and test.")
    for name in ({"train": "train"} | found).values():
        if name not in loaded or "train" not in found:
            raise UserError(
                f"{task.path} on the hub has no split {name!r}, only: {', '.join(loaded)}. "
                "Say which is which with task.hub_splits={train: NAME, dev: NAME, test: NAME}."
            )
    return {split: _rows(f"{task.path}[{name}]", loaded[name], columns) for split, name in found.items()}


def _columns(task: config.Task) -> dict[str, str]:
    """Map the hub's names of the text and label columns to the task's own."""
    text = task.hub_text or task.text
    if len(text) != len(task.text):
        raise UserError(f"task.hub_text={text} must name as many columns as task.text={task.text}.")
    return dict(zip([*text, task.hub_label or task.label], [*task.text, task.label], strict=True))


def _loaded(task: config.Task) -> DatasetDict:
    from datasets import load_dataset

    log.info("%s: asking the hub for %s", task.name, task.path)
    try:
        with quiet(), _patient():
            return load_dataset(task.path, task.config, revision=task.revision)
    except Exception as error:  # the hub's client, its HTTP library and the file formats each raise their own
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"task.path={task.path} is no directory here, and the hub did not give it: {reason}.{MEND}"
        ) from error


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
