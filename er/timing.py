"""Honest clocks: seconds by phase, measured after the device has finished."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def synchronize(device: torch.device) -> None:
    """Wait until `device` has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


_away = 0.0


def away() -> float:
    """Return the seconds for which the run that goes on has waited while others of its process went on."""
    return _away


def set_away(seconds: float) -> None:
    """Say so; it does not count as the run's own time."""
    global _away
    _away = seconds


def now() -> float:
    """Return the time, by a clock that stands still while a run is not the one that goes on."""
    return time.perf_counter() - _away


class Stopwatch:
    """Adds up wall-clock seconds by phase; one phase at a time."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._phase: str | None = None
        self._start = 0.0

    def start(self, phase: str) -> None:
        """End the phase that runs, if any, and begin `phase`."""
        self.stop()
        synchronize(self.device)  # a GPU launch returns before the work is done
        self._phase, self._start = phase, now()

    def stop(self) -> None:
        """End the phase that runs, if any."""
        if self._phase is not None:
            synchronize(self.device)
            self.seconds[self._phase] += now() - self._start
            self._phase = None

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count the block's seconds as `phase`, also when it fails."""
        self.start(phase)
        try:
            yield
        finally:
            self.stop()
