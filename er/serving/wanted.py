"""Which entries of the cache runs need to answer texts: all others are of texts that are gone."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np

from er.cache.key import Keys
from er.errors import UserError
from er.serving.predict import Predictor
from er.tasks import Row, unlabelled


def wanted(predictor: Predictor, rows: Iterable[Row]) -> dict[Path, Keys]:
    """Return, for the space of each run, the keys of these texts; nothing is computed but tokens."""
    found: dict[Path, list[Keys]] = {}
    rows = iter(rows)
    while chunk := list(islice(rows, predictor.chunk)):
        for run in predictor.runs:
            if run.cache is None:
                raise UserError(f"{run.trained.directory} reads nothing from the cache, so it says nothing about it.")
            task, kept = unlabelled(run.config.task, run.trained.labels, chunk)
            if kept:
                found.setdefault(run.cache.directory, []).append(run.tokens(task).keys().ravel())
    if not found:
        raise UserError("The input holds no text at all. To delete whole spaces, name them with space=.")
    return {directory: np.unique(np.concatenate(keys)) for directory, keys in found.items()}
