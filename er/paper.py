"""The settings of the paper's runs, where it has any for a model, a task, a method and a cut: `optim=paper`."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from er.checks import cut_layer
from er.choices import Trains
from er.config import Config
from er.errors import UserError

log = logging.getLogger(__name__)

TABLES = Path(__file__).with_suffix(".yaml")
OURS = "no value in the paper; the most frequent one of its tables"


class Setting(NamedTuple):
    """A value, and where it comes from."""

    value: Any
    source: str


def setting(field: str, config: Any) -> Setting:
    """Return a field of `Optim` as the paper has it for this configuration, composed or still being so."""
    way = "adapters" if config.method.trains is Trains.adapters else "standard"
    found = _learning_rate(config) if field == "lr" else _of_kind(field, config.task.name, way)
    return found or Setting(tables()["default"][way].get(field), OURS)


def explain(config: Config) -> None:
    """Log every setting of a run with where it comes from."""
    for name, (value, source) in explained(config).items():
        log.info("optim.%s=%s: %s", name, value, source)
    for note in notes(config):
        log.info("paper: %s", note)


def explained(config: Config) -> dict[str, Setting]:
    """Return every setting of a run with `optim=paper`; what the user set otherwise says so."""
    said = {name: value for name, value in vars(config.optim).items() if name not in ("name", "monitor")}
    found = {name: setting(name, config) for name in said}
    return {
        name: each if each.value == said[name] else Setting(said[name], f"set by you; {each.value} otherwise")
        for name, each in found.items()
    }


def notes(config: Config) -> list[str]:
    """Say what else the paper did in this run, which no setting of the optimiser can hold."""
    way = "adapters" if config.method.trains is Trains.adapters else "standard"
    runs = _of_kind("runs", config.task.name, way) or Setting(tables()["default"][way]["runs"], OURS)
    seeds = ",".join(str(seed) for seed in range(runs.value))
    said = [f"runs: {runs.value} ({runs.source}); for as many, er train -m seed={seeds}"]
    width = tables()["bottlenecks"].get(config.model.name, {}).get(config.task.name)
    if width is not None and way == "adapters" and config.method.recycles:
        said.append(f"the bottleneck was {width}: set method.adapter.bottleneck={width}")
    return said


@functools.cache
def tables() -> dict[str, Any]:
    """Return the tables as they lie beside this module."""
    found = OmegaConf.to_container(OmegaConf.load(TABLES))
    assert isinstance(found, dict)
    return {str(name): table for name, table in found.items()}


def _of_kind(field: str, task: str, way: str) -> Setting | None:
    kind = next((kind for kind, tasks in tables()["kinds"].items() if task in tasks), None)
    settings = tables()["runs_of"].get(kind, {}).get(way, {})
    return Setting(settings[field], f"the paper's scripts, {kind}, {way} training") if field in settings else None


def _learning_rate(config: Any) -> Setting | None:
    task, tasks = config.task.name, tables()["tasks"]
    row, where = _row(config)
    place = tasks.index(task) if task in tasks else len(tasks)
    if row is None or place >= len(row) or row[place] is None:
        return None
    return Setting(row[place], f"the paper's hyperparameters, {config.model.name}, {where}, {task}")


def _row(config: Any) -> tuple[list[float | None] | None, str]:
    """Return the learning rates of a model and a way to train it, by task, and what this way is."""
    model, method = config.model.name, config.method
    if method.source is not None:
        source = method.source.model.name
        return tables()["cross_model"].get(model, {}).get(source), f"from {source}"
    standard, adapters = tables()["standard"].get(model, {}), tables()["adapters"].get(model, {})
    if method.trains is Trains.all and not method.recycles:
        return standard.get("full"), "the whole model"
    if method.trains is Trains.adapters and not method.recycles:
        return adapters.get("all"), "adapters in all layers"
    k, depth = _cut(config)
    if method.trains is Trains.all:
        return standard.get(k), f"{k} layers frozen"
    if method.trains is Trains.adapters and depth is not None and k == depth / 2:
        return adapters.get("later"), "adapters in the later half"
    return None, ""


def _cut(config: Any) -> tuple[int | None, int | None]:
    depth = tables()["depth"].get(config.model.name)
    try:
        return (None if depth is None else cut_layer(config.method.cut, depth)), depth
    except UserError:
        return None, depth  # said where the cut is made
