"""Is one run better than another, or did the test examples just fall that way?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from er.errors import UserError

RESAMPLES = 9999
BATCH = 100
"""Resamples drawn at once, which bounds the memory: each is as long as the test set."""


class Difference(NamedTuple):
    """How much better the first of two runs scores."""

    mean: float
    low: float
    """The lower end of the 95 % interval of `mean`, from resampled test examples."""
    high: float
    p: float
    """How often runs that are equally good differ as much, in either direction."""


def paired_bootstrap(first: np.ndarray, second: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Difference:
    """Compare the scores of two runs on the same test examples.

    Both hold one score an example, shape (examples,): 0 or 1, or a question's F1. Or they hold a numerator
    and a denominator, shape (examples, 2), where the score is the ratio of their sums, as an F1 over entities
    is. The interval is that of the percentile bootstrap, p that of approximate randomisation, which swaps
    the two runs' answers to random examples.
    """
    from scipy.stats import bootstrap, permutation_test

    if len(first) != len(second) or not len(first):
        raise ValueError(f"{len(first)} and {len(second)} scores are no pairs. Compare runs on the same test examples.")
    count = len(first)
    parts = np.concatenate([_fractions(first), _fractions(second)])

    def difference(ours: np.ndarray, theirs: np.ndarray, axis: int = -1) -> np.ndarray:
        one, other = (parts[index].sum(axis=axis - 1 if axis < 0 else axis) for index in (ours, theirs))
        apart: np.ndarray = _ratio(one) - _ratio(other)
        return apart

    rows = (np.arange(count), np.arange(count, 2 * count))
    mean = float(difference(*rows))
    if np.array_equal(parts[:count], parts[count:]):
        return Difference(0.0, 0.0, 0.0, 1.0)  # nothing to resample: scipy would warn of it
    options: dict[str, Any] = {"n_resamples": resamples, "vectorized": True, "batch": BATCH}
    random = np.random.default_rng(seed)
    found = bootstrap(rows, difference, paired=True, method="percentile", rng=random, **options)
    swapped = permutation_test(rows, difference, permutation_type="samples", rng=random, **options)
    low, high = found.confidence_interval
    return Difference(mean, float(low), float(high), float(swapped.pvalue))


def compare(first: Path, second: Path, resamples: int = RESAMPLES, seed: int = 0) -> Difference:
    """Compare two runs by their `predictions.jsonl`: accuracy, a question's F1, or the F1 of entities."""
    ours, theirs = _records(first), _records(second)
    if [row["label"] for row in ours] != [row["label"] for row in theirs]:
        raise UserError(f"{first} and {second} are of other test examples. Compare runs of one task.")
    return paired_bootstrap(scores(ours), scores(theirs), resamples, seed)


def scores(records: list[dict[str, Any]]) -> np.ndarray:
    """Return what each prediction contributes to a run's score, as `paired_bootstrap` takes it."""
    if "f1" in records[0]:
        return np.array([row["f1"] for row in records])
    if isinstance(records[0]["label"], list):
        return np.array([_entities(row["label"], row["prediction"]) for row in records])
    return np.array([row["label"] == row["prediction"] for row in records], dtype=float)


def _entities(gold: list[str], guess: list[str]) -> tuple[int, int]:
    """Return numerator and denominator of F1: twice the entities that agree, and the entities of both."""
    from seqeval.metrics.sequence_labeling import get_entities

    right, found = set(get_entities(gold)), set(get_entities(guess))
    return 2 * len(right & found), len(right) + len(found)


def _fractions(scores: np.ndarray) -> np.ndarray:
    return scores if scores.ndim == 2 else np.stack([scores, np.ones_like(scores)], axis=1)


def _ratio(sums: np.ndarray) -> np.ndarray:
    """Divide numerators by denominators; where there is nothing to find, nothing is scored."""
    top, bottom = sums[..., 0], sums[..., 1]
    ratio: np.ndarray = np.divide(top, bottom, out=np.zeros_like(top, dtype=float), where=bottom > 0)
    return ratio


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} holds no predictions of er ({error}). Run the training again.") from error
