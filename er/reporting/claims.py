"""Our speedups beside those that the paper states, where it states one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from er import paper, tables
from er.checks import cut_layer
from er.reporting.benches import Timed
from er.results import Result

CLAIMS = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True)
class Beside:
    """One setting of ours, and what the paper states of it."""

    setting: str
    runs: int
    warm: float
    cold: float
    stated: str
    """In percent, with the cache there."""
    conditions: str


@dataclass(frozen=True)
class Bench:
    """What was timed in one mode, and what the paper states of it."""

    timed: Timed
    stated: str
    """In percent, with the cache there; nothing where the paper states none."""
    conditions: str


def beside(table: pd.DataFrame, done: list[Result]) -> list[Beside]:
    """Return each recycled setting with a speedup of which the paper has one, too.

    It has none of a part of the examples (task.limit), nor of a model with random weights.
    """
    ours = table.assign(depth=[_depth(result) for result in done], random=[_random(result) for result in done])
    ours = ours.loc[(ours.arm == "recycled") & ours.warm.notna() & (ours.limit == 0) & ~ours.random]
    return [
        Beside(
            _named(group.iloc[0]),
            len(group),
            float(group.warm.mean()),
            float(group.cold.mean()),
            claim["value"],
            claim["says"],
        )
        for _, group in ours.groupby([*tables.SETTING, *tables.TIMED], sort=False)
        for claim in _claims("training", *(group.iloc[0][name] for name in ("method", "task", "model", "cut", "depth")))
    ]


def next_to_paper(benches: Iterable[Timed]) -> list[Bench]:
    """Return each measurement with what the paper states of it, if that is anything."""
    found = [(each, _claims(each.mode, each.method, each.task, each.model, each.k, each.depth)) for each in benches]
    return [
        Bench(each, "; ".join(claim["value"] for claim in claims), " ".join(claim["says"] for claim in claims))
        for each, claims in found
    ]


def _claims(mode: str, method: str, task: str, model: str, k: int, depth: int) -> list[dict[str, Any]]:
    """Return the claims whose conditions these are; where the depth is not known (0), none are."""
    ours = {"modes": mode, "methods": method, "tasks": task, "models": model}
    claims: Any = OmegaConf.to_container(OmegaConf.load(CLAIMS))
    return [
        claim
        for claim in claims
        if all(value in claim[name] for name, value in ours.items() if name in claim)
        and depth
        and cut_layer(claim["share"], depth) == k
    ]


def _depth(result: Result) -> int:
    """Return how many layers the encoder has, as the record or the paper's tables tell; 0 where neither does."""
    return result.depth or paper.tables()["depth"].get(result.config["model"]["name"], 0)


def _random(result: Result) -> bool:
    return bool(result.identity["model"].get("random"))


def _named(run: pd.Series) -> str:
    return f"{run.method}, {run.task}, {run.model}, cut {run.cut}, {run.storage}, {run.device}"
