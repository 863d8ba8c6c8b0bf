"""The suggested cut follows from the scores, and costs no more than it may."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from er.studies.curve import Probe, smoothed, suggested

SCORES = st.lists(st.floats(0, 100), min_size=1, max_size=25)


def probes(scores: list[float]) -> list[Probe]:
    return [Probe(k, score, 1.0) for k, score in enumerate(scores)]


@given(SCORES)
def test_the_curve_never_rises_and_keeps_the_mean(scores: list[float]) -> None:
    curve = smoothed(scores)

    assert all(above >= below - 1e-9 for above, below in pairwise(curve))
    assert sum(curve) == pytest.approx(sum(scores))


@given(SCORES, st.floats(0, 100))
def test_no_deeper_cut_costs_as_little_as_the_suggested_one(scores: list[float], loss: float) -> None:
    curve, found = smoothed(scores), suggested(probes(scores), loss)

    assert curve[found.k] >= curve[0] - loss
    assert all(score < curve[0] - loss for score in curve[found.k + 1 :])


@given(SCORES, st.floats(0, 50), st.floats(0, 50))
def test_who_may_lose_more_cuts_no_less_deep(scores: list[float], loss: float, more: float) -> None:
    assert suggested(probes(scores), loss + more).k >= suggested(probes(scores), loss).k


def test_a_sudden_fall_is_seen_and_noise_is_not() -> None:
    found = suggested(probes([85.0, 84.6, 85.5, 84.9, 85.1, 62.0]), loss=1.0)

    assert found.k == 4
