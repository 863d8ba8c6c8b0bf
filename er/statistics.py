"""Is one run better than another, or did the test examples just fall that way?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from er.errors import UserError

RESAMPLES = 9999
BATCH = 100
"""Resamples drawn at once, which bounds the memory: each is at most as long as the test set."""


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
    if len(first) != len(second) or not len(first):
        raise ValueError(f"{len(first)} and {len(second)} scores are no pairs. Compare runs on the same test examples.")
    pairs = np.concatenate([_fractions(first), _fractions(second)], axis=1)
    # Most examples score alike, so how often each distinct pair is drawn says all, and takes no time.
    pairs, counts = np.unique(pairs, axis=0, return_counts=True)
    mean = float(_difference(counts[None], pairs)[0])
    if np.array_equal(pairs[:, :2], pairs[:, 2:]):
        return Difference(0.0, 0.0, 0.0, 1.0)
    random, batches = np.random.default_rng(seed), [BATCH] * (resamples // BATCH) + [resamples % BATCH]
    shares = counts / counts.sum()
    drawn = [_difference(random.multinomial(counts.sum(), shares, size), pairs) for size in batches]
    chance = [_swapped(random.binomial(counts, 0.5, (size, len(counts))), counts, pairs) for size in batches]
    low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975])
    extreme = (np.abs(np.concatenate(chance)) >= abs(mean) - 1e-12).sum()
    return Difference(mean, float(low), float(high), float((extreme + 1) / (resamples + 1)))


def _difference(drawn: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return by how much the first run is better in each resample, shape (resamples,)."""
    sums = drawn @ pairs
    apart: np.ndarray = _ratio(sums[:, :2]) - _ratio(sums[:, 2:])
    return apart


def _swapped(swaps: np.ndarray, counts: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return by how much the first run is better where so many of each pair have been swapped."""
    mirrored = np.concatenate([pairs, pairs[:, [2, 3, 0, 1]]])
    return _difference(np.concatenate([counts - swaps, swaps], axis=1), mirrored)


def predictions(path: Path) -> list[dict[str, Any]]:
    """Read a `predictions.jsonl`; a file that is none is a `UserError` that names it."""
    try:
        text = path.read_text(encoding="utf-8")
        records: list[dict[str, Any]] = json.loads(f"[{','.join(text.splitlines())}]")  # at once: a report reads many
        if not all(record.keys() >= {"label", "prediction"} for record in records) or not records:
            raise ValueError("no predictions in it")
        return records
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} holds no predictions of er ({error}). Run the training again.") from error


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
