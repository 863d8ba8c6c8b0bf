"""From the runs of a study to its settings, with what each takes on this machine."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch

from er.config import Trains
from er.encoders import Lower
from er.planning import ARMS, Build, Cost, Pace, Setting
from er.training import apart
from er.training.calibrate import Calibration, build_batches, build_cost, calibrate, evaluation_shapes, training_shapes
from er.training.recycle import open_cache
from er.training.study import Point, Shelf
from er.training.workload import Workload

T = TypeVar("T")

Runs = list[Point]
"""Those of one setting."""


def foresee(runs: list[Point], shelf: Shelf) -> list[Setting]:
    """Return the settings of a study, in the order in which they come; what is done needs no timing."""
    settings = grouped(runs, _setting)
    todo = [each for each in settings.values() if not all(point.done for point in each)]
    foreseen = {_setting(each[0]): setting for each, setting in Foresight(shelf).all(todo)}
    return [foreseen.get(key) or described(each, {}) for key, each in settings.items()]


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
    """Times what has to be timed, each thing once, and remembers what earlier settings will have built."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.whole: dict[Hashable, Calibration] = {}
        """Of models in which everything trains: the same beside every cut."""
        self.builds: dict[Hashable, Cost] = {}
        self.claimed: dict[str, set[bytes]] = {}
        """Keys of entries by space."""

    def all(self, settings: list[Runs]) -> Iterator[tuple[Runs, Setting]]:
        """Foresee settings that have runs to be done, model by model, and those of one method and cut together."""
        ordered = sorted(settings, key=lambda runs: (_model(runs[0]), not runs[0].config.method.recycles))
        for together in grouped(ordered, lambda runs: _timed(runs[0])).values():
            timings = self.timings(together)
            for runs in together:
                yield runs, self.setting(runs, timings)

    def timings(self, together: list[Runs]) -> Calibration:
        """Time the arms on the task that has the largest batches."""
        point = max((runs[0] for runs in together), key=self._largest)
        config, known = point.config, self.whole.get(_model(point))
        online = config.method.trains is Trains.all and not config.method.recycles
        if online and known is not None:
            return known
        task = self.shelf.task(config)
        work = Workload(task.name, task.head, task.outputs, self.shelf.tokens(config)["train"])
        wanted = ARMS if config.method.recycles else (point.arm,)
        arms = tuple(arm for arm in wanted if arm != ARMS[0] or known is None)
        timed = calibrate(config, point.k, work, arms, device_of(point))
        if known is not None and config.method.recycles:
            timed = Calibration(known.training | timed.training, known.inference | timed.inference, timed.lower)
        if ARMS[0] in timed.training:
            training, inference = ({ARMS[0]: costs[ARMS[0]]} for costs in (timed.training, timed.inference))
            self.whole.setdefault(_model(point), Calibration(training, inference, None))
        return timed

    def setting(self, runs: Runs, timings: Calibration) -> Setting:
        """Add up what the batches of one setting take."""
        point = runs[0]
        splits, size = self.shelf.tokens(point.config), point.config.optim.batch_size
        train = training_shapes(splits["train"], size, point.config.seed)
        dev, test = (evaluation_shapes(splits[name], size) for name in ("dev", "test"))
        paces = {
            arm: Pace(cost.seconds(train), timings.inference[arm].seconds(dev), timings.inference[arm].seconds(test))
            for arm, cost in timings.training.items()
        }
        if point.arm != "recycled" or timings.lower is None:
            return described(runs, paces)
        return described(runs, paces, *self.building(point, timings.lower))

    def building(self, point: Point, lower: Lower) -> tuple[Build, Build]:
        """Return what the cache has not got, and what of it no earlier setting builds."""
        cache, tokens = open_cache(point.config, lower), apart.inputs(self.shelf.tokens(point.config))
        keys = tokens.keys()
        missing = cache.missing(keys)
        if not len(missing):
            return Build(), Build()
        claimed = self.claimed.setdefault(cache.space.digest, set())
        own = missing[[key not in claimed for key in keys[missing].tolist()]]
        claimed.update(keys[missing].tolist())
        layers = (cache.space.weights, cache.space.cut_layer, cache.space.compute_dtype)
        if layers not in self.builds:
            some = tokens.rows(missing)
            self.builds[layers] = build_cost(point.config, cache, lower, some, device_of(point))

        def built(rows: np.ndarray) -> Build:
            shapes, _ = build_batches(point.config, cache, tokens.rows(rows))
            return Build(cache.size(tokens.lengths[rows]), self.builds[layers].seconds(shapes))

        return built(missing), built(own)

    def _largest(self, point: Point) -> int:
        shapes = training_shapes(
            self.shelf.tokens(point.config)["train"], point.config.optim.batch_size, point.config.seed
        )
        return int(shapes.prod(axis=1).max())


def _model(point: Point) -> str:
    return repr((point.config.model, point.config.trainer.precision, point.config.method.head))


def _timed(point: Point) -> Hashable:
    return _model(point), repr(point.config.method), point.k


def device_of(point: Point) -> torch.device:
    """Return the device that the run would use."""
    cpu = point.config.trainer.accelerator == "cpu" or not torch.cuda.is_available()
    return torch.device("cpu" if cpu else "cuda")
