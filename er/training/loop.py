"""The Lightning trainer of one run: what it saves, when it stops, what it shows, and what it times."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import Logger
from tqdm import tqdm

from er.config import Config
from er.errors import UserError
from er.training.record import MONITOR, Record
from er.training.requeue import Requeue


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


def build_trainer(config: Config, record: Record, logger: Logger | None) -> Trainer:
    """Return a trainer that records, stops early and shows its progress as configured."""
    quieten()
    callbacks: list[Callback] = [Progress()] if config.trainer.progress else []
    if config.optim.patience is not None:
        callbacks.append(EarlyStopping(MONITOR, patience=config.optim.patience))
    callbacks += [record, Requeue(record)]
    try:
        return Trainer(
            accelerator=config.trainer.accelerator,
            devices=config.trainer.devices,
            precision=config.trainer.precision.value,
            deterministic=config.trainer.deterministic,
            max_epochs=config.optim.epochs,
            gradient_clip_val=config.optim.clip,
            callbacks=callbacks,
            plugins=[LightningEnvironment()],  # or it takes a Slurm job for its own, and requeues what submitit does
            logger=logger or False,
            default_root_dir=record.path.parent,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            inference_mode=False,  # the lower layers' outputs may be used by autograd later
        )
    except (MisconfigurationException, ValueError) as error:
        raise UserError(f"trainer.accelerator={config.trainer.accelerator}: {error} Try trainer=default.") from error


def quieten() -> None:
    """Silence what Lightning says of decisions that were made on purpose, and of its own dependencies."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # importing it has set its own level
    for message in (
        "does not have many workers",
        r"module\(s\) in eval mode",
        "smaller than the logging interval",
        r"isinstance\(treespec, LeafSpec\)",
        "The `srun` command is available",
    ):
        warnings.filterwarnings("ignore", message=f".*{message}")
