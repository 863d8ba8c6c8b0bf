"""What the page opens with: what was run, where and when, what it cost and gained, and whether to believe it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from er import tables
from er.identity import run_id
from er.reporting.gather import Gathered
from er.reporting.significance import SIGNIFICANT, with_baseline
from er.statistics import Difference

SCATTER = 0.1
"""What the standard deviation of a ratio of times may be, as a share of it."""

SAME = "the same model, task, seed, batch size, hardware, versions, attention and max_length, done alone (together=1)"
"""What a run must share with a finetune run for a speedup, in words."""

PHASES = ("build_s", "read_s", "train_s", "evaluate_s")


class Finding(NamedTuple):
    """One reason to believe the figures, or not to."""

    good: bool
    title: str
    says: str


class Gain(NamedTuple):
    """The recycled setting that gains most, of those that lose no score if there are such."""

    setting: str
    warm: float
    cold: float
    even: float
    """Epochs that pay for the building; NaN where it never does."""
    points: float
    """Its score minus that of its baselines; NaN where there is none."""
    tested: bool
    worse: bool
    """Whether this difference is significant, and a loss."""
    median_cold: float
    median_points: float
    settings: int
    """How many recycled settings were compared with a baseline."""
    slower: int
    """How many of them gain nothing once the cache is there."""


@dataclass
class Opening:
    """The first screen of the page."""

    runs: str
    ran: str
    hardware: list[str]
    when: str
    seconds: dict[str, float]
    megabytes: float
    gain: Gain | None
    findings: list[Finding]


def opening(found: Gathered, differences: dict[Hashable, Difference], missing: int) -> Opening:
    """Say what all runs come to; `differences` is by the fields of `tables.SETTING`."""
    table = found.table
    return Opening(
        runs=counted(len(table), "run"),
        ran=", ".join(_counted(table[name], name) for name in ("task", "model", "method", "cut", "seed")),
        hardware=_hardware(table),
        when=" to ".join(dict.fromkeys([table.finished.min()[:10], table.finished.max()[:10]])),
        seconds={name.removesuffix("_s"): float(table[name].sum()) for name in PHASES},
        megabytes=float(_spaces(found)) / 1e6,
        gain=_gain(table, differences),
        findings=[
            _seeds(table),
            _baselines(table),
            *_several_baselines(table),
            *_exact(found),
            *_clocks(table),
            _one_kind(table, tables.HARDWARE, "hardware"),
            _one_kind(table, ["versions"], "versions"),
            *_source(table),
            *_caveats(found, missing),
        ],
    )


def counted(count: int, noun: str) -> str:
    """Write a number of things."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _counted(column: pd.Series, name: str) -> str:
    values = [str(value) for value in dict.fromkeys(column) if name != "cut" or value > 0] or ["0"]
    if len(values) == 1:
        return f"{name} {values[0]}"
    shown = f" ({', '.join(values)})" if len(values) <= 4 else ""
    return f"{len(values)} {name}s{shown}"


def _hardware(table: pd.DataFrame) -> list[str]:
    groups: dict[Any, int] = table.groupby([*tables.HARDWARE, "versions"], sort=False).size().to_dict()
    return [
        f"{device}, {counted(cpus, 'CPU core')}, on {host}; {_short(versions)}"
        + f" ({counted(n, 'run')})" * (len(groups) > 1)
        for (host, device, cpus, versions), n in groups.items()
    ]


def _short(versions: str) -> str:
    """Keep of the versions what makes times differ most."""
    wanted = [each for each in versions.split(", ") if each.split(" ")[0] in ("er", "torch", "transformers")]
    return ", ".join(wanted) or "versions unknown"


def _spaces(found: Gathered) -> int:
    """Return the bytes in the cache: runs share a space's entries, so each space counts once, by its largest user."""
    largest: dict[str, int] = {}
    for result in found.done:
        cache = result.cache or {}
        space = str(cache.get("space"))
        largest[space] = max(largest.get(space, 0), cache.get("bytes", 0))
    return sum(largest.values())


def _gain(table: pd.DataFrame, differences: dict[Hashable, Difference]) -> Gain | None:
    """Return the setting with the greatest cold speedup, since it has to pay for its building."""
    paired = with_baseline(table)
    recycled = paired.loc[(paired.arm == "recycled") & paired.warm.notna()]
    if recycled.empty:
        return None
    recycled = recycled.assign(points=recycled.score - recycled.score_base)
    groups = recycled.groupby([*tables.SETTING, *tables.TIMED], sort=False)
    means = groups[["warm", "cold", "points", "cost_s", "saved_s"]].mean()
    settings = [key[: len(tables.SETTING)] for key in means.index]
    worse = np.array([_worse(differences.get(setting)) for setting in settings])
    place: Any = (means if worse.all() else means[~worse]).cold.idxmax()
    best: Any = means.loc[place]
    task, model, method, cut, *_ = place
    several = [str(each) for each, column in ((model, "model"), (task, "task")) if table[column].nunique() > 1]
    return Gain(
        setting=", ".join([f"{method} cut at layer {cut}", *several]),
        warm=float(best.warm),
        cold=float(best.cold),
        even=float(best.cost_s / best.saved_s) if best.saved_s > 0 else float("nan"),
        points=float(best.points),
        tested=place[: len(tables.SETTING)] in differences,
        worse=bool(worse.all()),
        median_cold=float(means.cold.median()),
        median_points=float(means.points.median()),
        settings=len(means),
        slower=int((means.warm <= 0).sum()),
    )


def _worse(difference: Difference | None) -> bool:
    return difference is not None and difference.p < SIGNIFICANT and difference.mean < 0


def _seeds(table: pd.DataFrame) -> Finding:
    seeds = table.groupby(tables.SETTING).seed.nunique()
    least, most = seeds.min(), seeds.max()
    if least >= 3:
        return Finding(True, "Seeds", f"Every setting was run with at least {least}.")
    if most == 1:
        return Finding(False, "Seeds", "Every setting was run once: chance alone can make differences of this size.")
    given = f"{least}" if least == most else f"From {least} to {most}"
    return Finding(
        False, "Seeds", f"{given} a setting; {(seeds < 3).sum()} of {len(seeds)} settings have fewer than 3."
    )


def _baselines(table: pd.DataFrame) -> Finding:
    others = table.loc[table.method != "finetune"]
    without = int(others.warm.isna().sum())
    if others.empty:
        return Finding(False, "Baselines", "Only finetune was run: there is nothing to compare.")
    if without:
        says = f"have no finetune run of {SAME}, so no speedup."
        return Finding(False, "Baselines", f"{without} of {counted(len(others), 'run')} {says}")
    return Finding(True, "Baselines", f"Every run has its finetune run: {SAME}.")


def _several_baselines(table: pd.DataFrame) -> list[Finding]:
    """Say so where it had to be decided which finetune runs the others are compared with."""
    base = table.loc[table.method == "finetune"]
    groups = base.groupby([name for name in tables.LIKE if name != "seed"])
    settings = sorted({setting for _, group in groups if group.differs.nunique() > 1 for setting in group.differs})
    if not settings:
        return []
    says = f"finetune was run with {'; '.join(settings)}: scores are compared with what dev prefers in the mean."
    return [Finding(False, "Several baselines", says)]


def _exact(found: Gathered) -> list[Finding]:
    """Compare recycled runs with those that differ in nothing but that: float32 must give the same score, to the digit.

    On other hardware, or with other versions, not even the same run would.
    """
    same = [run_id(result.identity | {"storage": None}) for result in found.done]
    keys = ["same", *tables.HARDWARE, "versions", "attention"]
    table = found.table.assign(same=same)[[*keys, "arm", "storage", "score"]].dropna(subset="score")
    recycled = table.loc[(table.arm == "recycled") & (table.storage == "float32")]
    pairs = recycled.merge(table.loc[table.arm == "frozen"], on=keys, suffixes=("", "_frozen"))
    if pairs.empty:
        return []
    alike = int((pairs.score - pairs.score_frozen).abs().lt(0.005).sum())
    says = f"{alike} of {len(pairs)} recycled runs in float32 score to the digit what the same runs without a cache do."
    return [Finding(alike == len(pairs), "Exactness", says)]


def _clocks(table: pd.DataFrame) -> list[Finding]:
    """Say how far the speedups of a setting scatter over its seeds: on a busy machine they mean little."""
    others = table.loc[table.method != "finetune"]
    ratios = (1 + others.warm / 100).groupby([others[name] for name in (*tables.SETTING, *tables.TIMED)])
    spread = (ratios.std() / ratios.mean()).dropna()
    if spread.empty:
        return []
    steady, says = spread.max() <= SCATTER, f"The seeds of a setting agree on its speedup within {spread.max():.0%}"
    if steady:
        return [Finding(True, "Clocks", f"{says} of the ratio of step times (standard deviation).")]
    doubt = f"{says} only, as on a machine that does other work: er bench times the arms in turn."
    return [Finding(False, "Clocks", doubt)]


def _one_kind(table: pd.DataFrame, columns: list[str], noun: str) -> Finding:
    kinds = table[columns].drop_duplicates()
    if len(kinds) == 1:
        return Finding(True, noun.capitalize(), f"All runs share their {noun}.")
    said = "; ".join(dict.fromkeys(" ".join(map(str, kind)) for kind in kinds.itertuples(index=False)))
    return Finding(False, noun.capitalize(), f"{len(kinds)} are mixed, and never divided by each other: {said}.")


def _source(table: pd.DataFrame) -> list[Finding]:
    commits = sorted(set(table.commit) - {""})
    edited = [commit for commit in commits if commit.endswith("-dirty")]
    if edited:
        return [Finding(False, "Source", f"Run from a checkout with uncommitted changes: {', '.join(edited)}.")]
    if len(commits) > 1:
        return [Finding(False, "Source", f"Run from several commits: {', '.join(commits)}.")]
    return [Finding(True, "Source", f"All runs are of commit {commits[0]}.")] if commits else []


def _caveats(found: Gathered, missing: int) -> list[Finding]:
    """Name what else must be known before a figure is quoted."""
    table = found.table
    random = sum(bool(result.identity["model"].get("random")) for result in found.done)
    limited = int((table.limit > 0).sum())
    unscored = int(table.score.isna().sum())
    said = {
        "Random weights": (random, "made with random weights: their scores mean nothing."),
        "Limited": (limited, "trained on at most so many examples (task.limit)."),
        "No score": (unscored, "without the score of their task; their cells are empty."),
        "Unfinished": (len(found.unfinished), "begun and not finished."),
        "Missing": (missing, "of the grid never started, though others of the same study have them."),
    }
    findings = [
        Finding(False, name, f"{counted(count, 'run')} {says}") for name, (count, says) in said.items() if count
    ]
    if found.skipped:
        findings.append(
            Finding(False, "Left out", f"{counted(len(found.skipped), 'file')}: {' '.join(found.skipped.values())}")
        )
    return findings
