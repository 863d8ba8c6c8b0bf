"""Short runs at every cut of one model and task, all fed from one pass through its layers."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch

from er import encoders, results
from er.benchmarks.arms import whole
from er.checks import cut_layer
from er.choices import Switch, Trains
from er.config import Config
from er.errors import UserError
from er.results import Result
from er.studies.curve import Probe
from er.tasks import load_task
from er.training import apart
from er.training.cuts import fill_cuts
from er.training.recycle import device_of
from er.training.run import data_folder, run, tokenized

log = logging.getLogger(__name__)

FOLDER = ".search"
"""Below the runs, where reports do not look: these runs are too short to be shown beside others."""


def search(config: Config) -> list[Probe]:
    """Probe every cut that the method can have, the whole model first; what was probed before is not done again."""
    config = short(config)
    cuts = cuts_of(config)
    fill_all(config, cuts)
    online = whole("adapters" if config.method.trains is Trains.adapters else "finetune", config.method)
    methods = [online, *(replace(config.method, cut=k) for k in cuts)]
    return [probe(k, run(replace(config, method=method))) for k, method in zip([0, *cuts], methods, strict=True)]


def short(config: Config) -> Config:
    """Return the configuration of a short run: few examples, few epochs, and a folder apart."""
    if not config.method.recycles or config.method.source is not None:
        raise UserError(
            f"method={config.method.name}: only a method that recycles a model's own layers has a cut to search for. "
            "Choose reduced, reduced_adapters or bitfit."
        )
    given, few = config.task.limit, config.search.examples
    limit = few if given is None or (isinstance(given, int) and given > few) else given
    return replace(
        config,
        task=replace(config.task, limit=limit),
        optim=replace(config.optim, epochs=config.search.epochs, patience=None),
        cache=replace(config.cache, mode=Switch.on),
        paths=replace(config.paths, runs=str(Path(config.paths.runs).expanduser() / FOLDER)),
    )


def cuts_of(config: Config) -> list[int]:
    """Return the cuts to probe: those that are asked for, or all below which something is left to train."""
    depth = encoders.depth(encoders.load_config(config.model))
    deepest = depth if config.method.trains is Trains.all else depth - 1
    if config.search.cuts is None:
        return list(range(1, deepest + 1))
    cuts = sorted({cut_layer(cut, depth) for cut in config.search.cuts} - {0})
    if not cuts or cuts[-1] > deepest:
        raise UserError(
            f"search.cuts={config.search.cuts}: give layers of 1..{deepest}, or fractions that come to some."
        )
    return cuts


def fill_all(config: Config, cuts: list[int]) -> None:
    """Fill the cache for every cut in one pass."""
    torch.manual_seed(config.seed)  # where model.random asks for random weights, they are those of the runs
    tokens = apart.inputs(tokenized(config, load_task(config.task, data_folder(config))))
    fill_cuts(encoders.load_model(config.model), cuts, tokens, config, device_of(config))


def probe(k: int, result: Result) -> Probe:
    """Return what a short run says of its cut."""
    spent = result.seconds["train"] + result.seconds["read"]
    return Probe(k, 100 * results.score(result.metrics, "dev"), spent / result.steps)
