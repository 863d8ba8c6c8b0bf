"""What finished runs say of new texts, in chunks: what is known comes from the cache, the rest is computed and kept."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from er import digests
from er.choices import Switch
from er.config import Config
from er.errors import UserError
from er.serving.answering import Answering
from er.serving.trained import Trained, load_run
from er.tasks import NEW, Row, Task, unlabelled
from er.training.data import Tokens
from er.training.recycle import device_of
from er.training.run import WEIGHTS

log = logging.getLogger(__name__)

Answer = dict[str, Any]

BLANK = "blank text"


def predict(run: Trained | str | Path, texts: Iterable[Any], cache: str = "on") -> list[Answer]:
    """Return what a finished run says of texts, one record each, in their order.

    A text is a string, a pair of strings (for pairs, and for a question with its passage), a list of words (for
    tagging), or a dictionary of the task's columns. `cache` is `on`, `read` or `off`, as `cache.mode` is.

    >>> [said] = predict(folder, ["the horse is here"])
    >>> sorted(said)
    ['index', 'label', 'probabilities', 'probability']
    """
    trained = run if isinstance(run, Trained) else load_run(run)
    if isinstance(texts, str):
        raise UserError("texts is one string. Give a list of texts.")
    if cache not in Switch.__members__:
        raise UserError(f"cache={cache}: choose one of {', '.join(Switch.__members__)}.")
    settings = replace(trained.config, cache=replace(trained.config.cache, mode=Switch[cache]))
    rows = (_row(text, number, trained.config.task.text) for number, text in enumerate(texts))
    return list(Predictor([trained], settings).answers(rows))


def _row(text: Any, number: int, columns: list[str]) -> Row:
    where = f"texts[{number}]"
    if isinstance(text, dict):
        return Row(where, text)
    values = list(text) if len(columns) > 1 and isinstance(text, tuple | list) else [text]
    if len(values) != len(columns):
        raise UserError(f"{where}: {len(values)} of the {len(columns)} columns {', '.join(columns)}. Give all of them.")
    return Row(where, dict(zip(columns, values, strict=True)))


class Predictor:
    """One run or several that answer the same texts; what they share below their cuts is read or computed once.

    `settings` says where activations are kept and how, on which device to compute, and how much at once; all else is
    as the runs themselves have it.
    """

    def __init__(self, runs: list[Trained], settings: Config) -> None:
        device = device_of(settings)
        self.runs = [Answering(run, _settled(run.config, settings), device) for run in runs]
        self.names = _names(runs)
        lowers = {run.space: run.module.lower for run in self.runs}
        for run in self.runs:
            run.module.lower = lowers[run.space]  # equal ones are kept once
        self.chunk = settings.predict.chunk
        self.counts: Counter[str] = Counter()
        """Texts so far: all, those that were blank, those of which the model does not see all."""

    def told(self) -> list[Any]:
        """Return all that the answers depend on, but the texts, as JSON holds it."""
        each = [
            [run.trained.result.run_id, digests.of_files([run.trained.directory / WEIGHTS]), list(run.config.task.text)]
            for run in self.runs
        ]
        return [version("er"), self.names, each, self.chunk, self.runs[0].config.predict.batch_size]

    def answers(self, rows: Iterable[Row]) -> Iterator[Answer]:
        """Return a record for each row: what the run says, or, by name, what each of several says."""
        rows, numbers = iter(rows), count(self.counts["texts"])
        while chunk := list(islice(rows, self.chunk)):
            with _quiet():
                said = self._answered(chunk)
            for row, answer in zip(chunk, said, strict=True):
                given = {"id": str(row.fields["id"])} if "id" in row.fields else {}
                yield {"index": next(numbers)} | given | answer

    def _answered(self, rows: list[Row]) -> list[Answer]:
        said: list[Answer] = [{} for _ in rows]
        tasks = [unlabelled(run.config.task, run.trained.labels, rows) for run in self.runs]
        all_logits = self._logits([task if kept else None for task, kept in tasks])
        for name, (task, kept), logits in zip(self.names, tasks, all_logits, strict=True):
            answers = dict(zip(kept, task.answers(NEW, logits), strict=True)) if kept else {}
            for i, record in enumerate(said):
                answer = answers.get(i, {"error": BLANK})
                record |= {name: answer} if len(self.names) > 1 else answer
        self.counts["texts"] += len(rows)
        self.counts["blank"] += len(rows) - min(len(kept) for _, kept in tasks)
        self.counts["truncated"] += max(task.truncated for task, _ in tasks)
        return said

    def _logits(self, tasks: list[Task | None]) -> list[list[np.ndarray]]:
        """Return the logits of every run; those that read the same inputs in one space go through them together."""
        together: dict[tuple[str, bytes], tuple[Tokens, list[int]]] = {}
        for i, (run, task) in enumerate(zip(self.runs, tasks, strict=True)):
            if task is not None:
                tokens = run.tokens(task)
                together.setdefault((run.space, tokens.keys().tobytes()), (tokens, []))[1].append(i)
        found: list[list[np.ndarray]] = [[] for _ in tasks]
        for tokens, members in together.values():
            rows: dict[int, dict[int, np.ndarray]] = {i: {} for i in members}
            for batch in self.runs[members[0]].batches(tokens):
                for i in members:
                    rows[i] |= dict(zip(batch["indices"].tolist(), self.runs[i].logits(batch), strict=True))
            for i in members:
                found[i] = [rows[i][index] for index in range(len(tokens))]
        return found


def _settled(own: Config, settings: Config) -> Config:
    """Return a run's configuration, at work here."""
    task = own.task if settings.predict.text is None else replace(own.task, text=settings.predict.text)
    return replace(
        own,
        task=task,
        paths=settings.paths,
        predict=settings.predict,
        cache=replace(settings.cache, dtype=own.cache.dtype),
        trainer=replace(settings.trainer, precision=own.trainer.precision, progress=False),
    )


def _names(runs: list[Trained]) -> list[str]:
    """Name runs by their tasks, and those of one task by their folders, too."""
    tasks = [run.config.task.name for run in runs]
    names = [
        task if tasks.count(task) == 1 else f"{task}/{run.config.model.name}/{run.directory.resolve().name}"
        for task, run in zip(tasks, runs, strict=True)
    ]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"run: {twice} is given twice. Name each run once.")
    return names


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what tasks and cache would say of every chunk."""
    loggers = [logging.getLogger(name) for name in ("er.tasks", "er.cache", "er.training.recycle")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
