"""What a study will take, from what a few batches took: nothing but arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Shapes: TypeAlias = NDArray[np.int64]
"""Batches, a row each: how many inputs, and the tokens of the longest."""

ARMS = ("finetune", "frozen", "recycled")


class Cost(NamedTuple):
    """What a batch takes: some seconds for itself, some for every padded token, and some more the longer it is."""

    batch: float
    token: float
    square: float
    """Of attention: for every padded token, times the tokens of the longest."""

    def seconds(self, shapes: Shapes) -> float:
        """Return what all these batches take."""
        return float((_terms(shapes) @ np.array(self)).sum())


def fitted(shapes: Shapes, seconds: list[float]) -> Cost:
    """Return the cost that explains these timings best, relative to each: no part of it is below zero."""
    terms, taken = _terms(shapes), np.array(seconds)
    largest = terms.max(axis=0)
    found, _ = nnls(terms / largest / taken[:, None], np.ones(len(taken)))
    return Cost(*(found / largest).tolist())


def _terms(shapes: Shapes) -> NDArray[np.float64]:
    inputs, longest = shapes.reshape(-1, 2).astype(np.float64).T
    return np.stack([np.ones_like(inputs), inputs * longest, inputs * longest**2], axis=1)


@dataclass(frozen=True)
class Pace:
    """The seconds of one arm."""

    epoch: float
    """Training on every batch once."""
    dev: float
    """Evaluation after each epoch."""
    test: float
    """Evaluation at the end."""

    def run(self, epochs: int) -> float:
        """Return what a run of so many epochs takes."""
        return epochs * (self.epoch + self.dev) + self.test


@dataclass(frozen=True)
class Build:
    """Entries that the cache has not got."""

    bytes: int = 0
    seconds: float = 0.0
    """NaN where building was not timed."""


@dataclass(frozen=True)
class Setting:
    """Runs of a study that differ in nothing that takes time: only in seeds, epochs, learning rates."""

    model: str
    task: str
    method: str
    cut: int
    storage: str
    """The dtype of what is stored, where anything is."""
    arm: str
    """How these runs are done."""
    done: int
    epochs: tuple[int, ...]
    """At most so many, of every run that is still to be done."""
    paces: Mapping[str, Pace]
    """By arm, as far as timings are known; of settings that are done there are none."""
    missing: Build = Build()
    """What any one of these runs would have to build."""
    own: Build = Build()
    """Of that, what no setting before this one has built by then."""

    def seconds(self, arm: str) -> float:
        """Return what the runs that are still to be done take in an arm, building apart."""
        return sum(self.paces[arm].run(epochs) for epochs in self.epochs)

    @property
    def hours(self) -> float | None:
        """What the runs that are still to be done take, with what they build; `None` where no timing is known."""
        if not self.epochs:
            return 0.0
        seconds = self.seconds(self.arm) + self.own.seconds if self.arm in self.paces else math.nan
        return None if math.isnan(seconds) else seconds / 3600

    @property
    def recycles(self) -> bool:
        """Whether these runs read the cache, and any is still to be done."""
        return self.arm == "recycled" and bool(self.epochs)


def break_even(setting: Setting, base: str) -> float:
    """Return the epochs of training after which the building has paid, against another arm; NaN if it never does."""
    saved = setting.paces[base].epoch - setting.paces["recycled"].epoch
    return setting.missing.seconds / saved if saved > 0 else float("nan")


def verdict(setting: Setting, base: str) -> str | None:
    """Say in words why recycling does not pay against another arm, or nothing where it does."""
    after, epochs = break_even(setting, base), sum(setting.epochs)
    online, recycled = (setting.paces[arm].epoch for arm in (base, "recycled"))
    if after != after:
        return f"an epoch from the cache takes {recycled:.1f} s, with {base} {online:.1f} s"
    if after > epochs:
        return f"building has paid against {base} after {after:.1f} epochs, and {epochs} are planned"
    return None


@dataclass(frozen=True)
class Total:
    """What a study takes that is still to be done."""

    bytes: int
    build: float
    recycled: float
    """With building."""
    frozen: float
    """The recycled runs with the layers below the cut computed again in every step."""
    finetune: float
    """The recycled runs with everything trained instead."""


def total(settings: Iterable[Setting]) -> Total:
    """Add up; runs that do not recycle take what they take, with recycling and without."""
    todo = [setting for setting in settings if setting.epochs]
    build = sum(each.own.seconds for each in todo)
    plain = sum(each.seconds(each.arm) for each in todo if not each.recycles)
    arms = {arm: plain + sum(each.seconds(arm) for each in todo if each.recycles) for arm in ARMS}
    size = sum(each.own.bytes for each in todo)
    return Total(size, build, arms["recycled"] + build, arms["frozen"], arms["finetune"])


def chosen(shapes: Shapes, count: int) -> list[int]:
    """Return the batches that stand for all: the smallest, the largest, and evenly many between these."""
    order = np.argsort(shapes.prod(axis=1), kind="stable")
    places = np.linspace(0, len(order) - 1, count).round().astype(int)
    return list(dict.fromkeys(order[places].tolist()))
