"""The runs of a study, before any is begun: which are done, which are impossible, and where each would go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.errors import CompactHydraException

from er import checks, encoders, identity, results
from er.choices import OnDone
from er.config import Config, Model
from er.errors import UserError
from er.progress import progress_bar
from er.studies.grid import composed
from er.tasks import Task, load_task
from er.training import naming
from er.training.data import Split
from er.training.run import data_folder, tokenized


class Shelf:
    """What the runs of a study share, read once; what cannot be read fails once, and then with the same words."""

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}
        self._tokens: tuple[str, dict[str, dict[str, Split]]] = ("", {})

    def task(self, config: Config) -> Task:
        """Return the task of a run."""
        task: Task = self._once(lambda: load_task(config.task, data_folder(config)), config.task, config.paths.data)
        return task

    def depth(self, model: Model) -> int:
        """Return how many layers a model has."""
        return int(self._once(lambda: encoders.depth(encoders.load_config(model)), "depth", model))

    def source(self, model: Model) -> str:
        """Return what stands for a model's files."""
        return str(self._once(lambda: encoders.source(model), "source", model))

    def tokens(self, config: Config) -> dict[str, Split]:
        """Return the tokenised splits of a run; only those of one model are kept at a time."""
        model, about = repr(config.model), repr((config.task, config.paths, config.method.source))
        if model != self._tokens[0]:
            self._tokens = (model, {})
        kept = self._tokens[1]
        if about not in kept:
            kept[about] = tokenized(config, self.task(config))
        return kept[about]

    def _once(self, read: Callable[[], Any], *about: Any) -> Any:
        key = repr(about)
        if key not in self._kept:
            try:
                self._kept[key] = read()
            except UserError as error:
                self._kept[key] = error
        if isinstance(self._kept[key], UserError):
            raise self._kept[key]
        return self._kept[key]


@dataclass(frozen=True)
class Point:
    """One run of a study."""

    config: Config
    k: int
    depth: int
    directory: Path
    done: bool
    overrides: tuple[str, ...] = ()
    """What composes it, where it comes from a sweep."""
    name: str = ""
    """Of these, what tells it from the other points."""

    @property
    def arm(self) -> str:
        """How it is done: from the cache, with the frozen layers computed again, or with all of them."""
        if checks.recycled(self.config):
            return "recycled"
        return "frozen" if self.config.method.recycles else self.config.method.name


@dataclass(frozen=True)
class Study:
    """The points of a sweep."""

    runs: list[Point]
    """Each once, though several points may be the same run."""
    points: int
    impossible: dict[str, list[str]]
    """Points that cannot be run, by the reason."""


def survey(points: list[list[str]], shelf: Shelf, progress: bool, verb: str = "train") -> Study:
    """Compose and check every point as `er train` would, and look whether it is done; the verb may have its options."""
    runs: dict[Path, Point] = {}
    impossible: dict[str, list[str]] = {}
    names = distinct(points)
    bar = progress_bar(iterable=points, desc="points", leave=False, disable=not progress)
    for each, name in zip(bar, names, strict=True):
        try:
            checks.check_verb(verb, each)
            point = placed(checks.settings(composed("train", each)), shelf)
            runs.setdefault(point.directory, replace(point, overrides=tuple(each), name=name))
        except CompactHydraException as error:  # ours are of this kind, too
            reason = "\n".join(str(each) for each in (error, error.__cause__) if each is not None)
            impossible.setdefault(reason, []).append(name)
    return Study(list(runs.values()), len(points), impossible)


def distinct(points: list[list[str]]) -> list[str]:
    """Name each point by what is not the same in all of them; a single one by all that it says."""
    same = set.intersection(*map(set, points)) if len(points) > 1 else set()
    return [" ".join(word for word in point if word not in same) for point in points]


def placed(config: Config, shelf: Shelf) -> Point:
    """Check a run as far as that goes without beginning it, and find its folder."""
    task, depth = shelf.task(config), shelf.depth(config.model)
    k, named = naming.named(config, depth, {"model": shelf.source(config.model), "task": task.digest})
    directory = identity.run_dir(config, identity.run_id(named))
    there = (directory / results.NAME).exists()
    if there and config.on_done is OnDone.error:
        raise UserError(f"{directory} holds a result already. Set on_done=skip or on_done=overwrite.")
    return Point(config, k, depth, directory, there and config.on_done is OnDone.skip)
