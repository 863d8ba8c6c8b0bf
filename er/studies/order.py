"""The order in which a sweep does its runs: what shares activations together, and what is cheap first."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from er import encoders
from er.studies.foresee import grouped
from er.studies.study import Point, Shelf


def ordered(runs: list[Point], shelf: Shelf) -> list[Point]:
    """Put runs that read the same space one after another, within it those of a task, each time the cheapest first.

    Runs that read no space are together by their model. What costs the same stays in the order of the grid.
    """
    costs = {run.directory: cost(run, shelf) for run in runs}

    def cheapest(group: list[Point]) -> float:
        return min(costs[run.directory] for run in group)

    def by(group: list[Point], key: Callable[[Point], Hashable]) -> list[list[Point]]:
        return sorted(grouped(group, key).values(), key=cheapest)

    return [
        run
        for alike in by(runs, space)
        for task in by(alike, lambda run: repr(run.config.task))
        for run in sorted(task, key=lambda run: costs[run.directory])
    ]


def space(run: Point) -> Hashable:
    """Return what runs agree in that read the same space, as far as the configuration tells."""
    config, source = run.config, run.config.method.source
    if run.arm != "recycled":
        return repr(config.model)
    model, cut = (config.model, run.k) if source is None else (source.model, source.cut)
    return repr((model, cut, config.trainer.precision, config.cache.dtype))


def cost(run: Point, shelf: Shelf) -> float:
    """Return about how much a run computes: passes through a layer, forward one and back two, times a layer's size."""
    config, task = run.config, shelf.task(run.config)
    above, below = (run.depth - run.k, run.k) if config.method.recycles else (run.depth, 0)
    passes = 3 * above + (0 if run.arm == "recycled" else below)
    width = encoders.load_config(config.model).hidden_size
    return float(config.optim.epochs * task.sizes["train"] * passes * width**2)
