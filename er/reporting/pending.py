"""What is still to be run: runs that did not end, and cells of the grid that others of the same study have."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from er import asked
from er.asked import Asked
from er.identity import run_id
from er.reporting import overrides
from er.reporting.gather import Gathered, Unfinished
from er.results import NAME, Result
from er.tables import arm

NEVER = "never started"

APART = ("encode", "offset")
"""What of a task's settings says how it is trained, rather than what is learned."""


@dataclass(frozen=True)
class Pending:
    """A run that is still to be done."""

    task: str
    model: str
    method: str
    cut: str
    seed: str
    state: str
    """What stopped it, or that it never began."""
    command: str


def pending(found: Gathered) -> list[Pending]:
    """Return all that is still to be run: what was begun, what sweeps have asked for, what is missing from the grid.

    The grid is a guess, so it is that of runs which no sweep has asked for.
    """
    wanted = {Path(each.directory).name: each for each in asked.read(found.folder)}
    by_hand = [result for result in found.done if _name(result) not in wanted]
    missing = {cell.name: cell for study in _studies(by_hand) for cell in _missing(study) if cell.name not in wanted}
    begun = {each.directory.name: each for each in found.unfinished}
    started = [_begun(each, missing.get(name), wanted.get(name)) for name, each in begun.items()]
    never = [
        _asked(each, NEVER)
        for name, each in wanted.items()
        if name not in begun and not (found.folder / each.directory / NAME).exists()
    ]
    return started + never + [cell.pending(NEVER) for name, cell in missing.items() if name not in begun]


@dataclass(frozen=True)
class _Cell:
    """A place of the grid that no result fills, and the configuration that would."""

    config: dict[str, Any]
    name: str
    """The run folder, where the identity is known for certain: that of a run that differs in the seed alone."""

    def pending(self, state: str, command: str = "") -> Pending:
        task, model, method = (self.config[group]["name"] for group in ("task", "model", "method"))
        cut, seed = str(self.config["method"]["cut"]), str(self.config["seed"])
        return Pending(task, model, method, cut, seed, state, command or overrides.command(self.config))


def _name(result: Result) -> str:
    return f"{result.config['method']['name']}-{result.run_id}"


def _asked(each: Asked, state: str) -> Pending:
    return Pending(each.task, each.model, each.method, each.cut, each.seed, state, each.command)


def _begun(each: Unfinished, cell: _Cell | None, wanted: Asked | None) -> Pending:
    """Describe a run that did not end, as exactly as is known."""
    if wanted is not None:
        return _asked(wanted, each.error)
    if cell is not None:
        return cell.pending(each.error, each.command)
    if each.config:
        return _Cell(each.config, each.directory.name).pending(each.error, each.command)
    *_, task, model, folder = ("", "", *each.directory.parts)
    method = folder.rpartition("-")[0]
    command = each.command or f"er train model={model} task={task} method={method}  # with its cut and seed"
    return Pending(task, model, method, "", "", each.error, command)


def _studies(done: list[Result]) -> list[list[Result]]:
    """Group runs that are one study: trained alike, so that a hole in their grid is one."""
    groups: dict[str, list[Result]] = {}
    for result in done:
        groups.setdefault(_alike(result), []).append(result)
    return list(groups.values())


def _alike(result: Result) -> str:
    named, optim = result.identity, dict(result.config["optim"])
    if optim["name"] == "paper":  # sets each task's and model's own
        optim = {"name": "paper"}
    return json.dumps([optim, named["task"]["limit"], named["precision"], named["method"]["head"]], sort_keys=True)


def _missing(study: list[Result]) -> Iterator[_Cell]:
    """Yield each combination of a model, a task, a way to train and a seed that occur, but not together."""
    ways = {_way(result): result for result in reversed(study)}
    models, tasks = (
        {result.config[group]["name"]: result for result in reversed(study)} for group in ("model", "task")
    )
    have = {(*_place(result), result.config["seed"]): result for result in study}
    like = {_place(result): result for result in study}
    seeds = sorted({result.config["seed"] for result in study})
    for model, task, way in itertools.product(reversed(models), reversed(tasks), reversed(ways)):
        for seed in seeds:
            if (model, task, way, seed) in have:
                continue
            sibling = like.get((model, task, way))
            config = deepcopy(sibling.config) if sibling else _mixed(models[model], tasks[task], ways[way])
            name = f"{ways[way].config['method']['name']}-{_identifier(sibling, model, task, way, seed)}"
            yield _Cell(config | {"seed": seed}, name)


def _identifier(sibling: Result | None, *cell: Any) -> str:
    return run_id(sibling.identity | {"seed": cell[-1]}) if sibling else "/".join(map(str, cell))


def _mixed(model: Result, task: Result, way: Result) -> dict[str, Any]:
    """Return the configuration of one run with the model and the task of others."""
    apart = {name: way.config["task"][name] for name in APART if name in way.config["task"]}
    config = deepcopy(way.config) | {"model": model.config["model"], "task": task.config["task"] | apart}
    if config["optim"]["name"] == "paper":
        config["optim"] = {"name": "paper"}
    return config


def _place(result: Result) -> tuple[str, str, str]:
    return result.config["model"]["name"], result.config["task"]["name"], _way(result)


def _way(result: Result) -> str:
    """Say how a run was trained, model, task and seed apart."""
    apart = [result.identity["task"].get(name) for name in APART]
    return json.dumps([result.config["method"], arm(result), result.identity["storage"], apart], sort_keys=True)
