"""Runs that go on in turns, a batch each, in one thread: each with a random state and a clock of its own."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from greenlet import getcurrent, greenlet
from hydra.core.hydra_config import HydraConfig

from er import timing

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
"""Those for which a run has handlers of its own while it trains."""


@dataclass(frozen=True)
class State:
    """All that is global in a process, and that a run changes or draws from."""

    drawn: tuple[Any, ...]
    gradients: bool
    handlers: dict[signal.Signals, Any]
    hydra: Any
    away: float

    @classmethod
    def now(cls) -> State:
        """Return the state as it is."""
        drawn = torch.get_rng_state(), torch.cuda.get_rng_state_all(), np.random.get_state(), random.getstate()
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        return cls(drawn, torch.is_grad_enabled(), handlers, HydraConfig.instance().cfg, timing.away())

    def restore(self) -> None:
        """Make it the state again."""
        torch.set_rng_state(self.drawn[0])
        torch.cuda.set_rng_state_all(self.drawn[1])
        np.random.set_state(self.drawn[2])
        random.setstate(self.drawn[3])
        torch.set_grad_enabled(self.gradients)
        for number, handler in self.handlers.items():
            if handler is not None:  # one that Python has not set, it cannot set again
                signal.signal(number, handler)
        HydraConfig.instance().cfg = self.hydra
        timing.set_away(self.away)


class Turn(greenlet):
    """A run among others: it goes on until it wants a batch, and then the next one does.

    All of them are in one thread, since each would otherwise have its own pool of threads that compute.
    """

    def __init__(self, work: Callable[[], Any], state: State) -> None:
        super().__init__(work)
        self.state = state
        self.left = time.perf_counter()

    def take(self) -> Any:
        """Let it go on; what it returns counts only once it is `dead`."""
        self.state.restore()
        timing.set_away(self.state.away + time.perf_counter() - self.left)
        try:
            return self.switch()
        finally:
            self.state, self.left = State.now(), time.perf_counter()


def hand_over() -> None:
    """Let the others go on, if there are others."""
    current = getcurrent()
    if isinstance(current, Turn):
        current.parent.switch()


def in_turns(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """Do all of it, and return what each returns; what one raises ends all."""
    before = State.now()
    turns = [Turn(work, before) for work in works]
    given: dict[Turn, Any] = {}
    try:
        while len(given) < len(turns):
            for turn in turns:
                if turn not in given:
                    said = turn.take()
                    if turn.dead:
                        given[turn] = said
    finally:
        for turn in turns:
            if not turn.dead:
                turn.throw()  # since another was interrupted
        before.restore()
    return [given[turn] for turn in turns]
