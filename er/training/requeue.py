"""What a run does when a scheduler wants its machine back: save, and only then let go."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from er.training.record import Record

STAY = 600.0
"""Seconds to wait for the end that was announced; if it does not come, the run goes on."""


class Interrupted(SystemExit):
    """Ends a run whose job is to be requeued, by `leave`, once all that it has opened is closed."""

    def __init__(self, leave: Callable[[], Any]) -> None:
        super().__init__(-1)
        self.leave = leave


@contextmanager
def requeued() -> Iterator[None]:
    """Requeue the job of an interrupted run last of all: Slurm kills at once what is left of it, W&B's service, too.

    A run that was told to end has not done what it was asked to, which Lightning's exception would call success.
    """
    try:
        yield
    except Interrupted as interrupted:
        interrupted.leave()
        raise
    except SIGTERMException as told:
        raise SystemExit(128 + signal.SIGTERM) from told


def submitted() -> bool:
    """Tell whether submitit runs this process as a job."""
    return "SUBMITIT_EXECUTOR" in os.environ


class Requeue(Checkpoint):
    """Holds signals back until the step that runs is done and saved; a Checkpoint, so that it comes after the record.

    submitit's own handler (time is nearly up: SIGUSR2) requeues the job and ends the process wherever it happens to
    be, which would lose all since the last checkpoint. After SIGTERM, which precedes the end by some seconds, the run
    is saved and waits: a job that ended by itself would not be requeued by Slurm, and what ran beside it has ended.
    Outside of submitit Lightning ends the run on SIGTERM, after the step that runs: then, too, it is saved before.
    A run of several processes gets no signal here: it goes on from its last periodic checkpoint.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.before: dict[signal.Signals, Any] = {}
        self.leave: Callable[[], Any] | None = None
        self.doomed = False

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Take over the signals, from Lightning, too, which has registered its own by now."""
        self._take(signal.SIGTERM, self._save_and_stay if submitted() else self._save_and_pass_on)
        if submitted():
            from submitit import JobEnvironment

            self._take(JobEnvironment._usr_sig(), self._save_and_leave)

    def on_train_batch_end(self, *args: Any) -> None:
        """Leave, if that was asked for and the record has saved."""
        self._left()

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Leave, if that was asked for and the record has saved."""
        self._left()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Hand the signals back: what is left to do is short, and would be done again."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self._left()

    def _take(self, number: signal.Signals, handler: Callable[[int, FrameType | None], None]) -> None:
        before = signal.getsignal(number)
        if callable(before):
            self.before[number] = before
            signal.signal(number, handler)

    def _save_and_stay(self, number: int, frame: FrameType | None) -> None:
        self.record.asked = self.doomed = True

    def _save_and_pass_on(self, number: int, frame: FrameType | None) -> None:
        self.record.asked = True
        self.before[signal.SIGTERM](number, frame)

    def _save_and_leave(self, number: int, frame: FrameType | None) -> None:
        self.record.asked = True
        self.leave = partial(self.before[signal.Signals(number)], number, frame)

    def _left(self) -> None:
        if self.record.asked:
            return  # the last step of an epoch is saved at its end
        until = time.monotonic() + STAY
        while self.doomed and self.leave is None and time.monotonic() < until:
            time.sleep(0.5)
        self.doomed = False
        if self.leave is not None:
            raise Interrupted(self.leave)
