"""The Lightning trainer of one run: what it saves, when it stops, what it shows, and what it times."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import Logger
from tqdm import tqdm

from er.config import Config
from er.timing import Stopwatch

MONITOR = "dev/loss"


class Record(Callback):
    """Keeps what a run must remember when it is interrupted: seconds by phase, dev metrics, the random state.

    With the random state restored, a run that was killed and resumed gives the weights of one that was not.
    """

    def __init__(self, clock: Stopwatch) -> None:
        self.clock = clock
        self.history: list[dict[str, float]] = []
        self.random: torch.Tensor | None = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Restore the random state of the interrupted run."""
        if self.random is not None:
            torch.set_rng_state(self.random)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Count as training from here."""
        self.clock.start("train")

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Count as evaluation from here."""
        self.clock.start("evaluate")

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Note the dev metrics; saving checkpoints belongs to no phase."""
        self.clock.stop()
        dev = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("dev/")}
        self.history.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **dev})

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Count as evaluation from here."""
        self.clock.start("evaluate")

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Stop counting."""
        self.clock.stop()

    def best(self) -> dict[str, float]:
        """Return the dev metrics of the epoch whose weights are kept."""
        return min(self.history, key=lambda epoch: epoch[MONITOR])

    def state_dict(self) -> dict[str, Any]:
        """Return what to save with a checkpoint."""
        return {
            "seconds": dict(self.clock.seconds),
            "history": self.history,
            "random": torch.get_rng_state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where the checkpoint was saved."""
        self.clock.seconds.update(state_dict["seconds"])
        self.history = state_dict["history"]
        self.random = state_dict["random"]


class Progress(Callback):
    """One bar for the whole of training, with the time that is left and the last dev metrics."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Open the bar."""
        self.bar = tqdm(
            total=int(trainer.estimated_stepping_batches),
            initial=trainer.global_step,
            desc="train",
            unit="step",
            mininterval=0.5 if sys.stderr.isatty() else 30,
        )

    def on_train_batch_end(self, *args: Any) -> None:
        """Count one step."""
        self.bar.update()

    def on_validation_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Show the dev metrics."""
        metrics = trainer.callback_metrics
        shown = {name: f"{float(value):.4f}" for name, value in metrics.items() if name.startswith("dev/")}
        self.bar.set_postfix(shown, refresh=False)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Close the bar."""
        self.bar.close()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the error begins on a line of its own."""
        if hasattr(self, "bar"):
            self.bar.close()


def build_trainer(config: Config, directory: Path, record: Record, logger: Logger | None) -> Trainer:
    """Return a trainer that keeps the best and the last epoch in `directory` and stops early as configured."""
    quieten()
    callbacks: list[Callback] = [
        record,
        ModelCheckpoint(directory, "best", monitor=MONITOR, save_last=True, enable_version_counter=False),
    ]
    if config.optim.patience is not None:
        callbacks.append(EarlyStopping(MONITOR, patience=config.optim.patience))
    if config.trainer.progress:
        callbacks.append(Progress())
    return Trainer(
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        precision=config.trainer.precision.value,
        deterministic=config.trainer.deterministic,
        max_epochs=config.optim.epochs,
        gradient_clip_val=config.optim.clip,
        callbacks=callbacks,
        logger=logger or False,
        default_root_dir=directory,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,  # the lower layers' outputs may be used by autograd later
    )


def quieten() -> None:
    """Silence what Lightning says of decisions that were made on purpose, and of its own dependencies."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # importing it has set its own level
    for message in (
        "does not have many workers",
        r"module\(s\) in eval mode",
        "smaller than the logging interval",
        "Checkpoint directory .* exists and is not empty",
        r"isinstance\(treespec, LeafSpec\)",
    ):
        warnings.filterwarnings("ignore", message=f".*{message}")
