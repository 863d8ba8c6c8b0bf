"""Tasks: what is to be learned, from which texts, and how well it was learned."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from er import choices, config
from er.tasks.readers import Reader, Row
from er.tasks.task import IGNORED, NEW, SPLITS, Task

__all__ = ["IGNORED", "NEW", "SPLITS", "Reader", "Row", "Task", "load_task", "readers", "unlabelled"]

KINDS = {
    choices.Kind.classification: "er.tasks.classification",
    choices.Kind.pair_classification: "er.tasks.classification",
    choices.Kind.tagging: "er.tasks.tagging",
    choices.Kind.extractive_qa: "er.tasks.extractive_qa",
}
"""The module of each kind; it offers `load(task, data)`, `readers(task)` and `unlabelled(task, labels, rows)`."""


def load_task(task: config.Task, data: Path | None) -> Task:
    """Read the task's splits and check every example, before any model is loaded.

    `data` is `paths.data`, the folder of local data sets, or None.
    """
    loaded: Task = import_module(KINDS[task.kind]).load(task, data)
    return loaded


def readers(task: config.Task) -> dict[str, Reader]:
    """Say how each suffix of a file of new texts is read: no label is looked for."""
    found: dict[str, Reader] = import_module(KINDS[task.kind]).readers(task)
    return found


def unlabelled(task: config.Task, labels: list[str], rows: list[Row]) -> tuple[Task, list[int]]:
    """Return new texts as a task with the one split `NEW`, and which of the rows are in it: those that are not blank.

    `labels` are the names of the outputs, as they were learned.
    """
    found: tuple[Task, list[int]] = import_module(KINDS[task.kind]).unlabelled(task, labels, rows)
    return found
