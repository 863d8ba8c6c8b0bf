"""Runs as `er train` leaves them, made up: a study is what reports are about."""

from __future__ import annotations

import itertools
import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from er import identity, results, tables
from er.checks import cut_layer, recycled
from er.choices import Switch
from er.config import Config
from er.reporting.findings import opening
from er.reporting.gather import gather
from er.reporting.significance import differences, with_baseline
from er.results import Result

LAYERS = 6

HERE = {"host": "here", "device": "cpu", "cpus": 2, "packages": {"er": "0.1.0", "torch": "2.11.0"}, "commit": "abc"}

SECONDS = {"finetune": 40.0, "frozen": 25.0, "recycled": 15.0}


def result(config: Config, *, score: float = 0.8, metrics: dict[str, float] | None = None, **env: Any) -> Result:
    """Make up what a run of `config` records."""
    k = cut_layer(config.method.cut, LAYERS)
    named = identity.identity(config, k, {"model": config.model.name, "task": config.task.name})
    arm = "recycled" if recycled(config) else "frozen" if config.method.recycles else "finetune"
    cached = {"space": "s", "hits": 0, "misses": 9, "bytes": 10**7, "cost": 5.0} if arm == "recycled" else None
    return Result(
        run_id=identity.run_id(named),
        identity=named,
        config=identity.plain(config),
        metrics={"test/accuracy": score, "dev/loss": 1.0} if metrics is None else metrics,
        seconds={"build": 0.0, "read": 1.0, "train": SECONDS[arm] - 1, "evaluate": 2.0},
        steps=100,
        cache=cached,
        split={},
        parameters={},
        history=[{}] * 4,
        tokens_s={"train": 4e5 / SECONDS[arm], "evaluate": 2e4},
        memory={"rss": 2 * 10**9},
        depth=LAYERS,
        env={**HERE, "finished": "2026-01-02T03:04:05+00:00", **env},
    )


def leave(runs: Path, done: Result, right: np.ndarray | None = None) -> Path:
    """Write a run's folder; `right` says for each test example whether its label was predicted."""
    config = done.config
    names = [str(config[group]["name"]) for group in ("task", "model", "method")]
    folder = runs.joinpath(*names[:2], f"{names[2]}-{done.run_id}")
    folder.mkdir(parents=True, exist_ok=True)
    if right is not None:
        rows = [{"index": i, "label": "a", "prediction": "a" if yes else "b"} for i, yes in enumerate(right)]
        (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        hits = int(right.sum())
        confusion = {"labels": ["a", "b"], "matrix": [[hits, len(right) - hits], [0, 0]]}
        (folder / "details.json").write_text(json.dumps({"confusion": confusion}))
    results.write(folder / results.NAME, done)
    return folder


def arms(base: Config, methods: dict[str, Config], seeds: int = 1) -> list[Config]:
    """Return finetune, frozen and recycled configurations of each seed; `methods` holds one of each method."""
    reduced = replace(base, method=methods["reduced"].method)
    frozen = replace(reduced, cache=replace(reduced.cache, mode=Switch.off))
    tuned = replace(base, method=methods["finetune"].method)
    return [replace(deepcopy(each), seed=seed) for seed in range(seeds) for each in (tuned, frozen, reduced)]


def many(runs: Path, base: list[Config], count: int) -> None:
    """Leave so many runs: a grid of tasks, models, arms, cuts and seeds."""
    random = np.random.default_rng(0)
    grid = itertools.product(range(20), range(10), range(5), base[:3])
    for task, model, seed, config in itertools.islice(grid, count):
        named = replace(
            config, task=replace(config.task, name=f"t{task}"), model=replace(config.model, name=f"m{model}")
        )
        leave(runs, result(replace(named, seed=seed), score=0.8), random.random(500) < 0.8)


def doubts(runs: Path) -> dict[str, str]:
    """Return what a report of these runs warns of, by title."""
    found = gather(runs)
    known = differences(with_baseline(found.table), tables.SETTING)
    return {each.title: each.says for each in opening(found, known, 0).findings if not each.good}
