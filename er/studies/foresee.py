"""From the runs of a study to its settings, with what each takes on this machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch

from er import encoders
from er.benchmarks.workload import Workload
from er.encoders import Lower
from er.errors import UserError
from er.studies.calibrate import (
    about,
    about_build,
    build_batches,
    build_cost,
    calibrate,
    evaluation_shapes,
    training_shapes,
)
from er.studies.planning import ARMS, Build, Pace, Setting, Shapes
from er.studies.profile import Costs, Profile, opened
from er.studies.study import Point, Shelf, Study, survey
from er.training import apart, cross_model
from er.training.recycle import device_of, open_cache

T = TypeVar("T")

Runs = list[Point]
"""Those of one setting."""


def foresee(runs: list[Point], shelf: Shelf, profile: Profile, timing: bool = True) -> list[Setting]:
    """Return the settings of a study, in the order in which they come; what is done needs no timing.

    Without `timing`, what the profile does not know stays unknown: such a setting has no paces, and no hours.
    """
    settings = grouped(runs, _setting)
    todo = [each for each in settings.values() if not all(point.done for point in each)]
    foreseen = {_setting(each[0]): setting for each, setting in Foresight(shelf, profile, timing).all(todo)}
    return [foreseen.get(key) or described(each, {}) for key, each in settings.items()]


def expected(points: list[list[str]], progress: bool = False) -> tuple[Study, list[Setting]]:
    """Survey the points of a sweep, and say what its settings take as far as timings are known: none is taken.

    `Setting.hours` is `None` where one is missing; `er plan` with the same options takes and keeps it.
    """
    shelf = Shelf()
    study = survey(points, shelf, progress)
    if not study.runs:
        return study, []
    return study, foresee(study.runs, shelf, profile_of(study), timing=False)


def profile_of(study: Study) -> Profile:
    """Open the profile that a study's plan reckons with."""
    return opened(study.runs[0].config, device_of(study.runs[0].config))


def grouped(items: Iterable[T], by: Callable[[T], Hashable]) -> dict[Hashable, list[T]]:
    """Put together what has the same key, in the order in which it comes."""
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(by(item), []).append(item)
    return groups


def _setting(point: Point) -> Hashable:
    config = point.config
    storage = config.cache if point.arm == "recycled" else None
    alike = (config.model, config.task, config.method, storage, config.trainer.precision, config.optim.batch_size)
    return repr(alike), point.k, point.arm


def described(runs: Runs, paces: dict[str, Pace], missing: Build = Build(), own: Build = Build()) -> Setting:  # noqa: B008
    """Say what the runs of one setting have in common."""
    point = runs[0]
    config = point.config
    return Setting(
        model=config.model.name,
        task=config.task.name,
        method=config.method.name,
        cut=point.k,
        storage=config.cache.dtype.value if point.arm == "recycled" else "",
        arm=point.arm,
        done=sum(each.done for each in runs),
        epochs=tuple(each.config.optim.epochs for each in runs if not each.done),
        paces=paces,
        missing=missing,
        own=own,
    )


class Foresight:
    """Knows what a profile knows, times what it does not, and remembers what earlier settings will have built."""

    def __init__(self, shelf: Shelf, profile: Profile, timing: bool) -> None:
        self.shelf, self.profile, self.timing = shelf, profile, timing
        self.claimed: dict[str, set[bytes]] = {}
        """Keys of entries by space."""

    def all(self, settings: list[Runs]) -> Iterator[tuple[Runs, Setting]]:
        """Foresee settings that have runs to be done, model by model, those with the largest batches first."""
        for together in grouped(settings, lambda runs: _model(runs[0])).values():
            for runs in sorted(together, key=lambda runs: -self._shapes(runs[0]).prod(axis=1).max()):
                yield runs, self.setting(runs)

    def setting(self, runs: Runs) -> Setting:
        """Add up what the batches of one setting take."""
        point = runs[0]
        splits, size = self.shelf.tokens(point.config), point.config.optim.batch_size
        dev, test = (evaluation_shapes(splits[name], size) for name in ("dev", "test"))
        train = self._shapes(point)
        paces = {
            arm: Pace(cost["training"].seconds(train), cost["inference"].seconds(dev), cost["inference"].seconds(test))
            for arm, cost in self.timings(point).items()
        }
        return described(runs, paces, *(self.building(point) if point.arm == "recycled" else ()))

    def timings(self, point: Point) -> dict[str, Costs]:
        """Return what a batch takes in each arm that the setting is, or is measured against."""
        config, task, shapes = point.config, self.shelf.task(point.config), self._shapes(point)
        wanted = ARMS if config.method.recycles else (point.arm,)
        said = {arm: about(config, point.k, arm, task.head) for arm in wanted}
        found: dict[str, Costs | None] = {arm: self.profile.known(said[arm], shapes) for arm in wanted}
        unknown = tuple(arm for arm, costs in found.items() if costs is None)
        if unknown and self._may_time(point):
            work = Workload(task.name, task.head, task.outputs, self.shelf.tokens(config)["train"])
            for arm, costs in calibrate(config, point.k, work, unknown, device_of(point.config)).items():
                self.profile.keep(said[arm], shapes, costs)
                found[arm] = costs
        return {arm: costs for arm, costs in found.items() if costs is not None}

    def building(self, point: Point) -> tuple[Build, Build]:
        """Return what the cache has not got, and what of it no earlier setting builds."""
        lower = _lower(point)
        cache, tokens = open_cache(point.config, lower), apart.inputs(self.shelf.tokens(point.config))
        keys = tokens.keys()
        missing = cache.missing(keys)
        if not len(missing):
            return Build(), Build()
        claimed = self.claimed.setdefault(cache.space.digest, set())
        own = missing[[key not in claimed for key in keys[missing].tolist()]]
        claimed.update(keys[missing].tolist())
        some = tokens.rows(missing)
        shapes, _ = build_batches(point.config, cache, some)
        said = about_build(point.config, point.k)
        costs = self.profile.known(said, shapes)
        if costs is None and self._may_time(point):
            costs = {"build": build_cost(point.config, cache, lower, some, device_of(point.config))}
            self.profile.keep(said, shapes, costs)

        def built(rows: np.ndarray) -> Build:
            shapes, _ = build_batches(point.config, cache, tokens.rows(rows))
            return Build(cache.size(tokens.lengths[rows]), costs["build"].seconds(shapes) if costs else math.nan)

        return built(missing), built(own)

    def _shapes(self, point: Point) -> Shapes:
        split, config = self.shelf.tokens(point.config)["train"], point.config
        return training_shapes(split, config.optim.batch_size, config.seed)

    def _may_time(self, point: Point) -> bool:
        if self.timing and not self.profile.own:
            config = point.config
            raise UserError(
                f"plan.profile={self.profile.name}, of another machine, has no timing of {config.model.name}, "
                f"{config.method.name}, cut at layer {point.k}, with batches of {config.optim.batch_size} like those "
                f"of {config.task.name}. Run this plan there, without plan.profile, and copy the profile anew."
            )
        return self.timing


def _lower(point: Point) -> Lower:
    """Load the layers that a run would cache."""
    method, model = point.config.method, point.config.model
    torch.manual_seed(point.config.seed)
    if method.source is not None:
        return Lower(encoders.load_model(method.source.model), cross_model.source_layer(method.source))
    return Lower(encoders.load_model(model), point.k)


def _model(point: Point) -> str:
    return repr((point.config.model, point.config.trainer.precision, point.config.method.head))
