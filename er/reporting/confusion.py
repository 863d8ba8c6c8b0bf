"""Confusion matrices from the `details.json` of runs, the seeds of one way to train added up."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from er import tables
from er.reporting.figures import WAY, Chart, ways
from er.reporting.style import ARMS, INK, panel, rendered

DETAILS = "details.json"

READABLE = 12
"""Labels up to which the counts can be written into the cells."""


def matrices(table: pd.DataFrame, most: int) -> Iterator[Chart]:
    """Draw, for at most so many ways to train, which label was taken for which."""
    drawn = (each for _, place in table.groupby(["task", "model"], sort=False) for each in _of_place(place, table))
    yield from islice(drawn, most)


def _of_place(place: pd.DataFrame, table: pd.DataFrame) -> Iterator[Chart]:
    names = ways(place).set_index(WAY).label
    twins = set(place.loc[place.arm == "recycled", ["method", "cut"]].itertuples(index=False, name=None))
    groups: Iterable[tuple[Any, pd.DataFrame]] = place.groupby(tables.SETTING, sort=False)
    for key, group in groups:
        if key[4] == "frozen" and key[2:4] in twins:
            continue  # it predicts the same
        found = _summed([Path(directory) / DETAILS for directory in group.directory])
        if found is not None:
            task, model, *way = key
            label, arm = names[tuple(way)], way[2]
            named = label if arm in label else f"{label}, {arm}"
            yield _drawn(*found, f"{named}\n{task}, {model}", arm, f"confusion-{task}-{model}-{named}")


def _summed(paths: list[Path]) -> tuple[list[str], np.ndarray] | None:
    """Add up the matrices of the same labels; files that hold none are passed over."""
    found = [each for path in paths if (each := _read(path)) is not None]
    if not found:
        return None
    labels = found[0][0]
    return labels, np.sum([matrix for names, matrix in found if names == labels], axis=0)


def _read(path: Path) -> tuple[list[str], np.ndarray] | None:
    try:
        confusion = json.loads(path.read_text(encoding="utf-8"))["confusion"]
        labels, matrix = [str(label) for label in confusion["labels"]], np.array(confusion["matrix"], dtype=float)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a task whose answers are no labels has none
    return (labels, matrix) if matrix.shape == (len(labels), len(labels)) and labels else None


def _drawn(labels: list[str], matrix: np.ndarray, title: str, arm: str, name: str) -> Chart:
    """Draw the shares of each true label; opacity alone carries them, so that any background serves."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    pixels = np.concatenate([np.broadcast_to(to_rgb(ARMS[arm]), (*shares.shape, 3)), shares[..., None]], axis=2)
    with panel(title, 4.6, 4.2) as (figure, axes):
        axes.imshow(pixels, interpolation="nearest", aspect="auto")
        axes.grid(visible=False)
        size = 9 if len(labels) <= READABLE else 7
        axes.set_xticks(range(len(labels)), labels, rotation=60, ha="right", rotation_mode="anchor", fontsize=size)
        axes.set_yticks(range(len(labels)), labels, fontsize=size)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if len(labels) <= READABLE:
            _counts(axes, matrix, shares)
        right = np.trace(matrix) / max(matrix.sum(), 1)
        svg, png = rendered(figure, f"{title.replace(chr(10), ', ')}: {right:.1%} of the labels are right")
    return Chart("confusion", "".join(c if c.isalnum() or c in "-_" else "_" for c in name), svg, png)


def _counts(axes: Axes, matrix: np.ndarray, shares: np.ndarray) -> None:
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            color = "white" if shares[row, column] > 0.6 else INK
            axes.text(column, row, f"{count:.0f}", ha="center", va="center", color=color, fontsize=8)
