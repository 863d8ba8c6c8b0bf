from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_rel
from seqeval.metrics import f1_score

from er.statistics import paired_bootstrap, scores

RANDOM = np.random.default_rng(0)


def right(share: float, count: int = 500) -> np.ndarray:
    return (np.random.default_rng(int(share * 1000)).random(count) < share).astype(float)


def test_equal_runs_do_not_differ() -> None:
    assert paired_bootstrap(right(0.7), right(0.7)) == (0, 0, 0, 1)


def test_a_clear_difference_is_seen_in_either_direction() -> None:
    better, worse = paired_bootstrap(right(0.9), right(0.6)), paired_bootstrap(right(0.6), right(0.9))

    assert better.mean == right(0.9).mean() - right(0.6).mean() == -worse.mean
    assert 0 < better.low < better.mean < better.high
    assert better.p < 0.01 and worse.p < 0.01


def test_interval_and_p_are_about_those_of_a_t_test() -> None:
    first = RANDOM.random(400)
    second = first + RANDOM.normal(0.01, 0.1, 400)

    found, expected = paired_bootstrap(first, second), ttest_rel(first, second)

    assert found.p == pytest.approx(expected.pvalue, abs=0.02)
    interval = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.002)


def test_the_same_seed_gives_the_same_numbers() -> None:
    assert paired_bootstrap(right(0.7), right(0.71), seed=1) == paired_bootstrap(right(0.7), right(0.71), seed=1)


def test_scores_of_other_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        paired_bootstrap(np.ones(3), np.ones(4))


LABELS = ["O", "B-x", "I-x"]


def sentences(seed: int, count: int = 40) -> list[list[str]]:
    random = np.random.default_rng(seed)
    return [[LABELS[i] for i in random.integers(0, 3, 6)] for _ in range(count)]


def test_entities_are_compared_by_their_f1() -> None:
    gold, ours, theirs = sentences(0), sentences(1), sentences(2)

    one, other = (
        scores([{"label": g, "prediction": p} for g, p in zip(gold, guess, strict=True)]) for guess in (ours, theirs)
    )
    found = paired_bootstrap(one, other)

    assert found.mean == pytest.approx(f1_score(gold, ours) - f1_score(gold, theirs))
    assert found.low <= found.mean <= found.high


def test_sentences_without_entities_score_nothing() -> None:
    assert paired_bootstrap(np.zeros((5, 2)), np.ones((5, 2)), resamples=99).mean == -1


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"label": "a", "prediction": "a"}, {"label": "a", "prediction": "b"}], [1, 0]),
        ([{"label": ["a"], "prediction": "a b", "f1": 0.5}], [0.5]),
        ([{"label": ["B-x", "I-x"], "prediction": ["B-x", "O"]}], [[0, 2]]),
    ],
)
def test_every_kind_has_scores(rows: list[dict[str, Any]], expected: list[Any]) -> None:
    assert scores(rows).tolist() == expected
