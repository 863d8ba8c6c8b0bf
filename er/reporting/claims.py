"""Our speedups beside those that the paper states, where it states one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from er import paper, tables
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


def beside(table: pd.DataFrame, done: list[Result]) -> list[Beside]:
    """Return each recycled setting with a speedup of which the paper has one, too."""
    shares = pd.Series([_share(result) for result in done], index=table.index)
    ours = table.assign(share=shares).loc[(table.arm == "recycled") & table.warm.notna()]
    claims = OmegaConf.to_container(OmegaConf.load(CLAIMS))
    assert isinstance(claims, list)
    return [
        Beside(
            _named(key), len(group), float(group.warm.mean()), float(group.cold.mean()), claim["value"], claim["says"]
        )
        for key, group in ours.groupby([*tables.SETTING, *tables.HARDWARE], sort=False)
        for claim in claims
        if _meets(group.iloc[0], claim)
    ]


def _meets(run: pd.Series, claim: dict[str, Any]) -> bool:
    wanted = {"methods": run.method, "tasks": run.task, "models": run.model}
    known = all(value in claim[name] for name, value in wanted.items() if name in claim)
    return known and run.share == claim["share"]


def _share(result: Result) -> float | None:
    """Return which share of the layers is recycled, where the record or the paper's tables tell."""
    cut, depth = result.config["method"]["cut"], paper.tables()["depth"].get(result.config["model"]["name"])
    if isinstance(cut, float):
        return cut
    return cut / depth if depth else None


def _named(key: tuple[Any, ...]) -> str:
    task, model, method, cut, _, storage, _, _, device, _ = key
    return f"{method}, {task}, {model}, cut {cut}, {storage}, {device}"
