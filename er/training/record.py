"""What a run must remember: seconds by phase, dev metrics, the best weights; and the checkpoints that keep it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from er.timing import Stopwatch
from er.training import ranks

LAST = "last.ckpt"

SHARE = 0.05
"""Of a run's time that saving may take: checkpoints on a slow disk are rarer than asked for."""


class Record(Checkpoint):
    """Times a run, keeps its best weights, and saves all that an interrupted run needs to go on.

    With the random state restored, a run that was killed and resumed, within an epoch, too, gives the weights of one
    that was not.
    The best weights are kept in memory: only what trains is copied, and a file an epoch would take longer
    than the epoch itself where the lower layers are recycled.
    """

    def __init__(self, directory: Path, interval: float, score: str | None = None) -> None:
        self.path = directory / LAST
        self.monitor, self.mode = (f"dev/{score}", "max") if score else ("dev/loss", "min")
        """What says which epoch is the best: the dev loss, unless a score is named."""
        self.interval = interval
        self.due = time.monotonic() + interval
        self.asked = False
        """Whether to save as soon as the step that runs is done."""
        self.clock = Stopwatch()
        self.reading = Stopwatch()
        """Seconds spent on assembling batches, which the clock counts as training or evaluation."""
        self.history: list[dict[str, float]] = []
        self.weights: dict[str, Tensor] = {}
        """What trains, as it was after the best epoch."""
        self.random: list[list[Tensor]] = []
        """The state of each rank's generators."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Restore the random state of the interrupted run, or let each rank draw numbers of its own.

        What was interrupted counts as training from here: the epoch may be under way.
        """
        rank = ranks.rank()
        if rank < len(self.random):
            torch.set_rng_state(self.random[rank][0])
            torch.cuda.set_rng_state_all(self.random[rank][1:])
        elif rank > 0:
            torch.manual_seed((rank << 32) + torch.initial_seed())
        if self.random:
            self.clock.start("train")

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Count as training from here."""
        self.clock.start("train")

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        """Save, if it is time, what the step has led to; after the last one, the end of the epoch will."""
        if not trainer.is_last_batch and self._time_to_save(trainer):
            self._save(trainer)
            self.clock.start("train")

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Count as evaluation from here."""
        self.clock.start("evaluate")

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Note the dev metrics and the best weights; what follows belongs to no phase."""
        self.clock.stop()
        dev = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("dev/")}
        self.history.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **dev})
        if self.best() is self.history[-1]:
            self.weights = {name: p.detach().cpu().clone() for name, p in module.named_parameters() if p.requires_grad}

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Save, if it is time: last in the epoch, when early stopping has decided, too."""
        if self._time_to_save(trainer):
            self._save(trainer)

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Count as evaluation from here."""
        self.clock.start("evaluate")

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Stop counting."""
        self.clock.stop()

    def _time_to_save(self, trainer: Trainer) -> bool:
        due = self.asked or time.monotonic() >= self.due
        return bool(trainer.strategy.reduce_boolean_decision(due, all=False))  # one process cannot save alone

    def _save(self, trainer: Trainer) -> None:
        self.clock.stop()
        start = time.monotonic()
        trainer.save_checkpoint(self.path)
        end = time.monotonic()
        self.asked, self.due = False, end + (max(self.interval, (end - start) / SHARE) if self.interval else 0)

    def best(self) -> dict[str, float]:
        """Return the dev metrics of the epoch whose weights are kept, the first of equals."""
        best = max if self.mode == "max" else min
        return best(self.history, key=lambda epoch: epoch[self.monitor])

    def state_dict(self) -> dict[str, Any]:
        """Return what to save with a checkpoint."""
        return {
            "seconds": dict(self.clock.seconds),
            "reading": dict(self.reading.seconds),
            "history": self.history,
            "weights": self.weights,
            "random": ranks.gathered([torch.get_rng_state(), *torch.cuda.get_rng_state_all()]),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where the checkpoint was saved."""
        self.clock.seconds.update(state_dict["seconds"])
        self.reading.seconds.update(state_dict["reading"])
        self.history = state_dict["history"]
        self.weights = state_dict["weights"]
        self.random = state_dict["random"]
