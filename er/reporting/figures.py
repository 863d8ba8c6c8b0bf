"""Figures of one model on one task: score against speed and cut, where the time goes, when the cache has paid."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from itertools import islice
from textwrap import shorten, wrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from er import tables
from er.reporting.style import ARMS, AXIS, INK, PHASES, SOFT, SURFACE, panel, rendered

PLACE = ["task", "model", *tables.TIMED]
"""What the runs of one figure share."""

WAY = tables.SETTING[2:]
"""What tells the runs of one figure apart, seeds aside."""


AVERAGED = ["score", "warm", "cold", "cost_s", "saved_s", "read_s", "train_s", "evaluate_s"]
AVERAGED += ["step_s", "steps", "epochs"]

TOLD: dict[str, list[str]] = {"cut": [], "arm": [], "storage": ["arm"], "differs": []}
"""What is said of a way where several share its method, and what these must share besides."""


@dataclass(frozen=True)
class Chart:
    """A finished figure."""

    kind: str
    name: str
    """Of its files, without suffix."""
    svg: str
    png: bytes


Draw = Callable[[Axes, pd.DataFrame], str | None]
"""Draws the ways of one place; returns what is shown, in words, or nothing where there is nothing to show."""


def charts(table: pd.DataFrame, most: int) -> Iterator[Chart]:
    """Draw each kind of figure for each model and task on each hardware, at most so many of a kind."""
    places = [(key, ways(group)) for key, group in table.groupby(PLACE, sort=False)]
    for kind, draw in KINDS.items():
        drawn = (each for key, frame in places if (each := chart(kind, draw, key, frame, table)) is not None)
        yield from islice(drawn, most)


def chart(kind: str, draw: Draw, key: Hashable, frame: pd.DataFrame, table: pd.DataFrame) -> Chart | None:
    """Draw one figure, if there is anything to show."""
    title, name = titled(key, table)
    with panel(title) as (figure, axes):
        shown = draw(axes, frame)
        if shown is None:
            return None
        return Chart(kind, f"{kind}-{name}", *rendered(figure, f"{title}: {shown}"))


def titled(key: Hashable, table: pd.DataFrame) -> tuple[str, str]:
    """Return a figure's title, and the same as part of a file's name."""
    assert isinstance(key, tuple)
    task, model, *rest = map(str, key)
    varies = [value for name, value in zip(PLACE[2:], rest, strict=True) if table[name].nunique() > 1]
    title = ", ".join([task, model, *varies])
    name = "-".join("".join(letter if letter.isalnum() else "_" for letter in part) for part in (task, model))
    mark = f"-{hashlib.blake2b(repr(rest).encode(), digest_size=3).hexdigest()}" if varies else ""
    return title if len(title) < 60 else title[:57] + "...", name + mark


def ways(group: pd.DataFrame) -> pd.DataFrame:
    """Average the seeds of each way to train, and name it as briefly as can be."""
    frame = group.groupby(WAY, sort=False)[AVERAGED].mean().reset_index()
    frame["deviation"] = group.groupby(WAY, sort=False)["score"].std().to_numpy()
    several = {name: frame.groupby(["method", *beside])[name].transform("nunique") > 1 for name, beside in TOLD.items()}
    told = [
        [
            shorten(str(getattr(row, name)), 48)
            for name in TOLD
            if several[name].loc[row.Index] and getattr(row, name) != ""
        ]
        for row in _rows(frame)
    ]
    frame["label"] = [" ".join([method, *details]) for method, details in zip(frame.method, told, strict=True)]
    return frame


def score_speed(axes: Axes, frame: pd.DataFrame) -> str | None:
    """Draw the score against the speedup: filled with the cache there, hollow with its building counted."""
    frame = frame.loc[frame.warm.notna() & frame.score.notna()]
    if len(frame) < 2:
        return None
    for row in _rows(frame):
        color = ARMS[row.arm]
        axes.plot([row.cold, row.warm], [row.score] * 2, color=color, linewidth=1.5, zorder=2)
        axes.errorbar(row.warm, row.score, yerr=_known(row.deviation), color=color, linewidth=1.2, zorder=2)
        axes.plot(row.cold, row.score, "o", markerfacecolor=SURFACE, markeredgecolor=color, zorder=3)
        axes.plot(row.warm, row.score, "o", markerfacecolor=color, markeredgecolor=SURFACE, zorder=4)
    axes.margins(x=0.28, y=0.25)
    _label(axes, [(row.warm, row.score, row.label) for row in _rows(frame)])
    axes.set_xlabel("speedup over finetune, %  (○ building counted)")
    axes.set_ylabel("score, %")
    return "; ".join(f"{row.label}: score {row.score:.1f}, {row.warm:.0f} % faster" for row in _rows(frame))


def score_cut(axes: Axes, frame: pd.DataFrame) -> str | None:
    """Draw the score against the cut, one line for each method and arm; finetune is the level to reach."""
    frame = frame.loc[frame.score.notna()].sort_values("cut")
    groups = frame.groupby(["method", "arm", "storage", "differs"], sort=False)
    cut: dict[Any, pd.DataFrame] = {key: line for key, line in groups if line.cut.nunique() > 1}
    if not cut:
        return None
    ends = []
    for (method, arm, *_), line in cut.items():
        spread = line.deviation.fillna(0.0)
        axes.fill_between(line.cut, line.score - spread, line.score + spread, color=ARMS[arm], alpha=0.12, linewidth=0)
        axes.plot(line.cut, line.score, "o-", color=ARMS[arm], markeredgecolor=SURFACE)
        ends.append((line.cut.iloc[-1], line.score.iloc[-1], method))
    for row in _rows(frame.loc[frame.method == "finetune"]):
        axes.axhline(row.score, color=ARMS["online"], linewidth=1.2, linestyle=(0, (4, 3)))
        ends.append((frame.cut.max(), row.score, "finetune"))
    axes.margins(x=0.2, y=0.2)
    _label(axes, ends)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("cut: layers recycled or frozen")
    axes.set_ylabel("score, %")
    return "; ".join(f"{row.label}: {row.score:.1f}" for row in _rows(frame))


def time(axes: Axes, frame: pd.DataFrame) -> str | None:
    """Draw where the seconds of a run go; building counts in full, whoever did it."""
    frame = frame.iloc[::-1]
    phases = {"build": frame.cost_s, "read": frame.read_s, "train": frame.train_s, "evaluate": frame.evaluate_s}
    places, left = np.arange(len(frame)), np.zeros(len(frame))
    for phase, seconds in phases.items():
        width = seconds.fillna(0).to_numpy()
        axes.barh(places, width, 0.62, left, color=PHASES[phase], edgecolor=SURFACE, linewidth=1, label=phase)
        left += width
    for place, total in zip(places, left, strict=True):
        axes.annotate(f"{total:,.0f} s", (total, place), (4, 0), textcoords="offset points", va="center", color=SOFT)
    names = ["\n".join(wrap(label, 24)) for label in frame.label]
    axes.set_yticks(places, names, color=INK)
    _room_for(axes, names)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.14)
    axes.set_xlabel("seconds of a run, mean over seeds")
    axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 0.98), frameon=False, handlelength=0.8, columnspacing=1.0)
    axes.set_title(axes.get_title("left"), pad=24)
    return "; ".join(f"{row.label}: {total:.0f} s" for row, total in zip(_rows(frame), left, strict=True))


def break_even(axes: Axes, frame: pd.DataFrame) -> str | None:
    """Draw the hours that so many epochs take, building included: where lines cross the cache has paid."""
    base = frame.loc[frame.method == "finetune"]
    recycled = frame.loc[(frame.arm == "recycled") & frame.saved_s.notna()]
    if base.empty or recycled.empty:
        return None
    even = tables.break_even(recycled.cost_s, recycled.saved_s)
    last = float(np.nanmax([2.0, *base.epochs, *(1.5 * even.dropna())]))
    lines = pd.concat([base.assign(even=np.nan), recycled.assign(even=even)])
    epoch = lines.step_s * lines.steps / lines.epochs
    unit, seconds = next((each for each in UNITS if (epoch * last).max() >= each[1]), UNITS[-1])
    said = ["" if row.arm == "online" else _paid(row.even) for row in _rows(lines)]
    ends = (lines.cost_s + epoch * last) / seconds
    for row, end, slope in zip(_rows(lines), ends, epoch, strict=True):
        axes.plot([0, last], [row.cost_s / seconds, end], color=ARMS[row.arm])
        axes.plot(row.even, (row.cost_s + row.even * slope) / seconds, "o", color=INK, markersize=5, zorder=5)
    axes.set_xlim(0, last * 1.9)  # leaves room for the names
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= last])
    axes.set_ylim(bottom=0)
    _label(axes, [(last, end, label + even) for end, label, even in zip(ends, lines.label, said, strict=True)])
    axes.set_xlabel("epochs over the same texts, of any task and seed")
    axes.set_ylabel(f"{unit}, building included")
    return "the cache has paid: " + "; ".join(
        f"{label}{even}" for label, even in zip(lines.label, said, strict=True) if even
    )


KINDS: dict[str, Draw] = {
    "score_speed": score_speed,
    "score_cut": score_cut,
    "time": time,
    "break_even": break_even,
}


UNITS = (("hours", 3600), ("minutes", 60), ("seconds", 1))


def _rows(frame: pd.DataFrame) -> list[Any]:
    """Return the rows with their columns as attributes, of whatever type each is."""
    return list(frame.itertuples())


def _paid(epochs: float) -> str:
    return ": never pays" if np.isnan(epochs) else f": pays after {epochs:.1f}"


def _known(deviation: float) -> float | None:
    return None if np.isnan(deviation) else deviation


def _room_for(axes: Axes, names: list[str]) -> None:
    """Make a figure as high and as wide as the names beside its bars want it."""
    figure = axes.get_figure(root=True)
    if figure is None:
        return
    lines = [line for name in names for line in name.split("\n")]
    width, height = figure.get_size_inches()
    wide = width + 0.07 * max(0, max(map(len, lines)) - 12)
    figure.set_size_inches(wide, max(height, 1 + 0.17 * (len(lines) + 0.5 * len(names))))


def _label(axes: Axes, points: list[tuple[float, float, str]]) -> None:
    """Write a name beside each point, higher and with a line to it where two would meet."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    near, apart, placed = (right - left) * 0.45, (high - low) * 0.08, list[tuple[float, float]]()
    for x, y, name in sorted(points, key=lambda point: (point[1], -point[0])):
        height = y
        while any(abs(x - there) < near and abs(height - taken) < apart for there, taken in placed):
            height += apart / 4
        placed.append((x, height))
        line = {"arrowstyle": "-", "color": AXIS, "linewidth": 0.8, "shrinkB": 4} if height > y else None
        where = (x + (right - left) * 0.03, height)
        axes.annotate(name, (x, y), where, va="center", color=INK, fontsize=9, arrowprops=line)
