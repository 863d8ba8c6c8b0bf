"""What seconds mean: ratios undo each other, and after as many passes as are said to pay, both ways took as long."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from er import speed

TIMES = st.lists(st.floats(0.01, 10), min_size=3, max_size=9)


def record(online: list[float], factor: float, build: float) -> dict[str, Any]:
    """A bench in which the recycled arm takes `1 / factor` of the time of each batch of ten inputs."""
    mode = {
        "batch_size": 10,
        "seconds": {"finetune": online, "recycled": [each / factor for each in online]},
        "phases": {"finetune": {"read": 1.0, "forward": 3.0}},
        "multiplications": {"finetune": 700, "recycled": 200},
    }
    built = {"inputs": 100, "bytes": 1, "seconds": {"build": [build], "plain": [build]}}
    return {"model": "m", "training": mode, "inference": mode, "build": built, "depth": 6, "k": 3}


@given(TIMES, st.floats(0.2, 5))
def test_a_ratio_is_over_the_same_batches(online: list[float], factor: float) -> None:
    seconds = record(online, factor, 1)["training"]["seconds"]

    assert speed.ratio(seconds, "finetune", "recycled") == pytest.approx(factor)
    assert speed.ratio(seconds, "recycled", "finetune") == pytest.approx(1 / factor)
    assert speed.ratio(seconds, "finetune", "finetune") == 1


@given(TIMES, st.floats(1.1, 5), st.floats(0.01, 100))
def test_after_the_passes_that_pay_both_took_as_long(online: list[float], factor: float, build: float) -> None:
    said = record(online, factor, build)
    mode = said["training"]

    for row in speed.economy(said):
        alone = row["even after"] * speed.per_thousand(mode, "finetune")
        with_cache = speed.cost(said) + row["even after"] * speed.per_thousand(mode, "recycled")
        assert alone == pytest.approx(with_cache)
        assert row["cold %"] < row["warm %"] == pytest.approx((factor - 1) * 100)
        assert row["by work"] == 3.5
        assert row["of limit"] == pytest.approx(factor / 2)


def test_a_cache_that_saves_nothing_never_pays() -> None:
    assert all(row["even after"] != row["even after"] for row in speed.economy(record([1.0, 2.0, 3.0], 0.5, 1)))


def test_phases_add_up_to_the_whole() -> None:
    (row,) = speed.phases(record([1.0], 2, 1)["training"])

    assert row == {"arm": "finetune", "read": 25, "forward": 75}


def test_models_side_by_side_say_what_each_says_alone() -> None:
    said = record([1.0, 2.0, 4.0], 2, 1)
    alone = {row[""]: row["ratio"] for row in speed.economy(said)}

    rows = speed.side_by_side([said, said])

    assert [row[""] for row in rows] == ["training", "inference"] * 2
    assert all(row["finetune / recycled"] == alone[row[""]] for row in rows)
    assert (rows[0]["finetune ms"], rows[0]["recycled ms"], rows[0]["cut"]) == (2000, 1000, "3/6")
