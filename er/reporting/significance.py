"""Whether a way of training scores otherwise than finetune does, on the same test examples."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from er import statistics, tables
from er.errors import UserError
from er.statistics import Difference

SIGNIFICANT = 0.05

RESAMPLES = 1999
"""Enough to tell what is significant, for hundreds of comparisons at once."""

PREDICTIONS = "predictions.jsonl"


class Answers:
    """What each run scores on each test example, read once."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, np.ndarray] | None] = {}

    def pair(self, ours: str, theirs: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the scores of two run folders, or nothing where they are not of the same test examples."""
        one, other = self._read(ours), self._read(theirs)
        if one is None or other is None or one[0] != other[0] or one[1].shape != other[1].shape:
            return None
        return one[1], other[1]

    def _read(self, directory: str) -> tuple[int, np.ndarray] | None:
        if directory not in self._known:
            self._known[directory] = _read(Path(directory) / PREDICTIONS)
        return self._known[directory]


def _read(path: Path) -> tuple[int, np.ndarray] | None:
    try:
        records = statistics.predictions(path)
        return hash(str([record["label"] for record in records])), statistics.scores(records)
    except (UserError, KeyError, TypeError, ValueError):
        return None  # a run without predictions still has its score


def with_baseline(table: pd.DataFrame, baseline: str = "finetune") -> pd.DataFrame:
    """Add the folder and the score of the run, if there is one, that a run's score is compared with."""
    base = tables.baselines(table, tables.LIKE, baseline)[[*tables.LIKE, "directory", "score"]]
    return table.merge(base, on=tables.LIKE, how="left", suffixes=("", "_base"), validate="many_to_one")


def differences(table: pd.DataFrame, by: list[str]) -> dict[Hashable, Difference]:
    """Compare each group of runs with its baselines; p is adjusted for how many groups there are.

    The seeds of a group count together: an example's score is its mean over them. A group of which one run
    has no baseline, or no predictions, is not compared at all.
    """
    answers = Answers()
    others = table.loc[(table.method != "finetune") & (table.directory != table.directory_base)]
    found = {key: _difference(group, answers) for key, group in others.groupby(by, dropna=False)}
    known = {key: difference for key, difference in found.items() if difference is not None}
    if not known:
        return {}
    adjusted = false_discovery_control([difference.p for difference in known.values()])
    return {key: each._replace(p=float(p)) for (key, each), p in zip(known.items(), adjusted, strict=True)}


def _difference(group: pd.DataFrame, answers: Answers) -> Difference | None:
    if group.directory_base.isna().any():
        return None
    pairs = [answers.pair(*each) for each in zip(group.directory, group.directory_base, strict=True)]
    known = [pair for pair in pairs if pair is not None]
    if len(known) < len(pairs) or len({len(ours) for ours, _ in known}) != 1:
        return None
    ours, theirs = (np.mean(side, axis=0) for side in zip(*known, strict=True))
    return statistics.paired_bootstrap(ours, theirs, RESAMPLES)
