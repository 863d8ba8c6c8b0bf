"""The Lightning trainer of one run: what it saves, when it stops, what it shows, and what it times."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import DDPStrategy, Strategy
from tqdm import tqdm

from er.config import Config
from er.errors import UserError
from er.progress import progress_bar
from er.training import ranks
from er.training.record import Record
from er.training.requeue import Requeue


class Progress(Callback):
    """A bar for the whole of training and one for each evaluation, with the time that is left."""

    def __init__(self) -> None:
        self.bars: list[tqdm[Any]] = []
        """Those that are open, the innermost last."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Open the bar of training."""
        total = int(trainer.estimated_stepping_batches)
        self.bars = [progress_bar(total=total, initial=trainer.global_step, desc="train", unit="step")]

    def on_train_batch_end(self, *args: Any) -> None:
        """Count one step."""
        self.bars[-1].update()

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Open a bar below that of training, unless it is over at once."""
        total = sum(trainer.num_val_batches)
        self.bars.append(progress_bar(total=total, desc="evaluate dev", unit="batch", leave=False, delay=1))

    def on_validation_batch_end(self, *args: Any) -> None:
        """Count one batch."""
        self.bars[-1].update()

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Go back to the bar of training, and show the dev metrics there."""
        self.bars.pop().close()
        metrics = trainer.callback_metrics
        shown = {name: f"{float(value):.4f}" for name, value in metrics.items() if name.startswith("dev/")}
        self.bars[-1].set_postfix(shown, refresh=False)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Close the bar."""
        self.bars.pop().close()

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Open the bar of the last evaluation."""
        self.bars.append(progress_bar(total=sum(trainer.num_test_batches), desc="evaluate test", unit="batch"))

    def on_test_batch_end(self, *args: Any) -> None:
        """Count one batch."""
        self.bars[-1].update()

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Close the bar."""
        self.bars.pop().close()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Close what is open, so that the error begins on a line of its own."""
        while self.bars:
            self.bars.pop().close()


def build_trainer(config: Config, record: Record, logger: Logger | None) -> Trainer:
    """Return a trainer that records, stops early and shows its progress as configured."""
    quieten()
    callbacks: list[Callback] = [Progress()] if config.trainer.progress and ranks.rank() == 0 else []
    if config.optim.patience is not None:
        callbacks.append(EarlyStopping(record.monitor, patience=config.optim.patience, mode=record.mode))
    callbacks += [record, Requeue(record)]
    try:
        return Trainer(
            accelerator=config.trainer.accelerator,
            devices=ranks.world(),
            strategy=_strategy(),
            use_distributed_sampler=False,  # the batches are shared out already
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


def _strategy() -> Strategy | str:
    """Have the ranks, if there are several, average their gradients; buffers never change, so none are sent."""
    return DDPStrategy(broadcast_buffers=False) if ranks.world() > 1 else "auto"


def quieten() -> None:
    """Silence what Lightning says of decisions that were made on purpose, and of its own dependencies."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # importing it has set its own level
    for message in (
        "does not have many workers",
        r"module\(s\) in eval mode",
        "smaller than the logging interval",
        r"isinstance\(treespec, LeafSpec\)",
        "Experiment logs directory .* exists and is not empty",  # it holds what else a run leaves
        "The `srun` command is available",
        "`broadcast_buffers` is deprecated",  # in favour of what older versions of torch have not got
        "on epoch level in distributed setting",  # what is logged there, all ranks have from all
    ):
        warnings.filterwarnings("ignore", message=f".*{message}")
