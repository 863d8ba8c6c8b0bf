"""Tasks: what is to be learned, from which texts, and how well it was learned."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from er import config
from er.tasks.task import IGNORED, SPLITS, Task

__all__ = ["IGNORED", "SPLITS", "Task", "load_task"]

KINDS = {
    config.Kind.classification: "er.tasks.classification",
    config.Kind.pair_classification: "er.tasks.classification",
    config.Kind.tagging: "er.tasks.tagging",
    config.Kind.extractive_qa: "er.tasks.extractive_qa",
}
"""The module of each kind; it offers `load(task, data)`."""


def load_task(task: config.Task, data: Path | None) -> Task:
    """Read the task's splits and check every example, before any model is loaded.

    `data` is `paths.data`, the folder of local data sets, or None.
    """
    loaded: Task = import_module(KINDS[task.kind]).load(task, data)
    return loaded
