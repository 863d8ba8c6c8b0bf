"""What a study takes follows from what a batch takes, and from nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from er import speed
from er.studies.planning import Build, Cost, Pace, Setting, break_even, chosen, fitted, total, verdict

SHAPES = st.lists(st.tuples(st.integers(1, 32), st.integers(1, 512)), min_size=1, max_size=40).map(np.array)
SECONDS = st.floats(0.01, 100)
PACES = st.builds(Pace, SECONDS, SECONDS, SECONDS)
COSTS = st.builds(Cost, st.floats(0.001, 1), st.floats(1e-6, 1e-3), st.floats(1e-9, 1e-6))


def setting(**given: Any) -> Setting:
    usual: dict[str, Any] = {
        "model": "m",
        "task": "t",
        "method": "reduced",
        "cut": 3,
        "storage": "float32",
        "arm": "recycled",
        "done": 0,
        "epochs": (4, 4),
        "paces": {"finetune": Pace(10, 1, 1), "frozen": Pace(6, 1, 1), "recycled": Pace(4, 0.5, 0.5)},
        "missing": Build(1000, 12.0),
        "own": Build(1000, 12.0),
    }
    return Setting(**usual | given)


@given(COSTS, st.lists(st.integers(1, 512), min_size=5, max_size=9, unique=True))
def test_timings_without_noise_are_found_again(cost: Cost, longest: list[int]) -> None:
    shapes = np.array([(16, each) for each in longest])
    seconds = [cost.seconds(shape[None]) for shape in shapes]

    assert fitted(shapes, seconds).seconds(shapes) == pytest.approx(sum(seconds), rel=1e-6)


@given(SHAPES, st.lists(SECONDS, min_size=40, max_size=40))
def test_no_batch_takes_less_than_nothing(shapes: np.ndarray, seconds: list[float]) -> None:
    assert min(fitted(shapes, seconds[: len(shapes)])) >= 0


@given(COSTS, SHAPES, SHAPES)
def test_batches_add_up(cost: Cost, some: np.ndarray, others: np.ndarray) -> None:
    both = cost.seconds(np.concatenate([some, others]))

    assert both == pytest.approx(cost.seconds(some) + cost.seconds(others))


@given(SHAPES, st.integers(2, 6))
def test_the_smallest_and_the_largest_batch_are_among_the_chosen(shapes: np.ndarray, count: int) -> None:
    sizes, picked = shapes.prod(axis=1), chosen(shapes, count)

    assert 1 <= len(set(picked)) == len(picked) <= count
    assert {sizes.min(), sizes.max()} <= set(sizes[picked])
    assert list(sizes[picked]) == sorted(sizes[picked])


@given(PACES, st.integers(1, 20), st.integers(1, 20))
def test_epochs_add_up(pace: Pace, some: int, others: int) -> None:
    assert pace.run(some + others) == pytest.approx(pace.run(some) + pace.run(others) - pace.test)


@given(PACES, st.integers(1, 9), st.integers(1, 9))
def test_seeds_multiply_and_share_what_is_built(pace: Pace, epochs: int, seeds: int) -> None:
    one, many = (
        setting(epochs=(epochs,) * n, paces=dict.fromkeys(("finetune", "frozen", "recycled"), pace)) for n in (1, seeds)
    )

    assert total([many]).finetune == pytest.approx(seeds * total([one]).finetune)
    assert total([many]).recycled - 12 == pytest.approx(seeds * (total([one]).recycled - 12))
    assert total([many]).build == total([one]).build == 12


def test_what_another_setting_builds_is_not_counted_twice() -> None:
    both = total([setting(), setting(method="probe", own=Build())])

    assert (both.bytes, both.build) == (1000, 12)


def test_what_is_done_costs_nothing() -> None:
    assert total([setting(epochs=(), paces={}, done=2)]).recycled == 0


def test_runs_that_do_not_recycle_take_the_same_either_way() -> None:
    alone = total([setting(arm="finetune", own=Build(), missing=Build())])

    assert alone.recycled == alone.frozen == alone.finetune == 2 * (4 * 11 + 1)


@given(SECONDS, SECONDS, SECONDS)
def test_breaking_even_is_what_the_bench_says_it_is(online: float, recycled: float, build: float) -> None:
    """Of 1,000 inputs, in one batch."""
    assume(abs(online / recycled - 1) > 1e-6)
    seconds = {"finetune": [online], "recycled": [recycled]}
    mode = {"batch_size": 1000, "inputs": 1000, "seconds": seconds, "multiplications": dict.fromkeys(seconds, 1)}
    built = {"inputs": 1000, "bytes": 1, "seconds": {"build": [build], "plain": [build]}}
    row = speed.economy({"training": mode, "inference": mode, "build": built, "depth": 6, "k": 3})[0]

    paces = {"finetune": Pace(online, 0, 0), "recycled": Pace(recycled, 0, 0)}
    ours = break_even(setting(paces=paces, missing=Build(1, build)), "finetune")

    assert ours == pytest.approx(row["even after"], nan_ok=True)


def test_recycling_that_pays_gives_no_reason() -> None:
    assert verdict(setting(), "finetune") is None
    assert verdict(setting(), "frozen") is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epochs": (1,)}, "after 2.0 epochs, and 1 are planned"),
        ({"paces": {"finetune": Pace(3, 0, 0), "recycled": Pace(4, 0, 0)}}, "4.0 s, with finetune 3.0 s"),
    ],
)
def test_recycling_that_does_not_pay_says_why(change: dict[str, Any], says: str) -> None:
    assert says in (verdict(replace(setting(), **change), "finetune") or "")
