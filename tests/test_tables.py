"""Speedups are paired with a baseline on the same hardware, or they are absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from er import results, tables
from er.reporting.gather import gather
from er.results import Result


def result(method: str, train: float, *, cost: float | None = None, seed: int = 0, host: str = "here") -> Result:
    named: dict[str, Any] = {
        "task": {"name": "t", "limit": None},
        "model": {"name": "m"},
        "method": {"name": method, "head": "linear"},
        "cut": 0 if method == "finetune" else 3,
        "optim": {"batch_size": 32},
        "seed": seed,
        "precision": "32-true",
        "storage": None if cost is None else "float32",
    }
    return Result(
        run_id=f"{method}{seed}{host}",
        identity=named,
        config={
            **{name: {"name": "a"} for name in ("model", "optim")},
            "task": {"name": "t", "kind": "classification"},
            "method": {"name": method, "cut": 0.5, "recycles": method != "finetune"},
            "trainer": {"name": "cpu", "precision": "32-true"},
            "cut": 0.5,
            "seed": seed,
        },
        metrics={"test/accuracy": 0.5 + seed / 10, "test/macro_f1": 0.4, "dev/loss": 1.0},
        seconds={"build": 0.0, "read": 1.0, "train": train - 1.0, "evaluate": 1.0},
        steps=100,
        cache=None if cost is None else {"cost": cost, "bytes": 10**6},
        split={},
        parameters={},
        history=[{}] * 10,
        env={"host": host, "device": "cpu", "cpus": 2},
    )


def table_of(folder: Path, *done: Result) -> pd.DataFrame:
    for each in done:
        results.write(folder / each.run_id / results.NAME, each)
    return gather(folder).table


def test_warm_leaves_the_building_out_and_cold_counts_it(tmp_path: Path) -> None:
    table = table_of(tmp_path, result("finetune", 40), result("reduced", 10, cost=10))

    recycled = table.loc[table.method == "reduced"].iloc[0]
    assert recycled.warm == pytest.approx((40 / 10 - 1) * 100)
    assert recycled.cold == pytest.approx((40 / (10 + 10) - 1) * 100)
    assert recycled.break_even == pytest.approx(10 / ((40 - 10) / 10))
    assert recycled.arm == "recycled"


@pytest.mark.parametrize("difference", [{"host": "elsewhere"}, {"seed": 1}])
def test_without_a_baseline_that_matches_there_is_no_speedup(tmp_path: Path, difference: dict[str, Any]) -> None:
    table = table_of(tmp_path, result("finetune", 40), result("reduced", 10, cost=10, **difference))

    assert table.loc[table.method == "reduced", ["warm", "cold", "break_even"]].isna().all(axis=None)


def test_what_is_slower_never_breaks_even(tmp_path: Path) -> None:
    table = table_of(tmp_path, result("finetune", 40), result("reduced", 50, cost=10))

    assert table.loc[table.method == "reduced", "break_even"].isna().all()
    assert tables.summary(table).loc[lambda t: t.method == "reduced", "break_even"].isna().all()


def test_seeds_are_averaged_with_their_deviation(tmp_path: Path) -> None:
    table = table_of(tmp_path, *(result("finetune", 40, seed=seed) for seed in (0, 1)))

    (row,) = tables.summary(table).to_dict("records")
    assert row["seeds"] == 2
    assert row["accuracy"] == "55.00 ± 7.07"


def test_runs_that_differ_in_more_than_their_seed_are_not_averaged(tmp_path: Path) -> None:
    one, two, other = (result("reduced", 10, cost=1, seed=seed) for seed in (0, 1, 2))
    other.identity["optim"] = {"batch_size": 32, "lr": 0.5}
    one.identity["optim"], two.identity["optim"] = ({"batch_size": 32, "lr": 0.1} for _ in range(2))

    summary = tables.summary(table_of(tmp_path, one, two, other))
    assert summary.set_index("differs").seeds.to_dict() == {"lr=0.1": 2, "lr=0.5": 1}


def test_what_differs_is_told_whole_but_for_digests(tmp_path: Path) -> None:
    one, other = (result("reduced", 10, cost=1, seed=seed) for seed in (0, 1))
    one.identity |= {
        "adapter": {"kind": "double_seq_bn"},
        "task": {**one.identity["task"], "data": "0123456789abcdef" * 2},
    }
    other.identity |= {"adapter": {"kind": "lora"}, "task": {**other.identity["task"], "data": "f" * 32}}

    assert set(table_of(tmp_path, one, other).differs) == {
        "data=0123456789ab kind=double_seq_bn",
        "data=ffffffffffff kind=lora",
    }


def test_what_is_the_same_everywhere_is_no_difference(tmp_path: Path) -> None:
    table = table_of(
        tmp_path, result("finetune", 40), result("reduced", 10, cost=1), result("reduced", 10, cost=1, seed=1)
    )

    assert set(table.differs) == {""}
    assert "differs" not in tables.common(tables.summary(table))[1]
