"""RecyclingModule: the layers above the cut and a head, whatever their input comes from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from transformers import get_linear_schedule_with_warmup

from er.config import Optim
from er.training import ranks
from er.training.apart import lowered
from er.training.heads import LOSSES, within

if TYPE_CHECKING:
    from er.tasks import Task
    from er.training.methods import Parts

Batch = dict[str, Any]


class RecyclingModule(LightningModule):
    """Upper encoder and head, fed by the cache, by the frozen lower layers, or by nothing but tokens.

    A batch with `hidden` starts at the cut; without it the lower layers compute `hidden`, frozen; and with
    neither, `upper` is the whole encoder. All three are one class, so that the arms differ in nothing else.
    """

    def __init__(self, parts: Parts, task: Task, optim: Optim) -> None:
        super().__init__()
        self.lower, self.upper, self.head = parts.lower, parts.upper, parts.head
        self.task = task
        self.optim = optim
        self.loss = LOSSES[task.head]
        self.logits: dict[str, list[np.ndarray]] = {}
        """The logits of a split's last evaluation, in the split's order."""
        self._outputs: dict[int, np.ndarray] = {}
        self._losses: dict[int, float] = {}
        """By a batch's first example."""
        self.strict_loading = False  # checkpoints hold only what trains

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits of a batch."""
        inputs, hidden = batch["inputs"], batch.get("hidden")
        if hidden is None and self.lower is not None:
            hidden = lowered(self.lower, batch)
        output = self.upper(**inputs) if hidden is None else self.upper(hidden, **inputs)
        logits: Tensor = self.head(output)
        return within(logits, inputs["attention_mask"]) if self.task.head == "span" else logits

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Return the loss of one batch, or of a part so weighted that the mean gradient of all ranks is the batch's."""
        whole: Tensor = batch["whole"] if "whole" in batch else batch["labels"]
        loss = ranks.world() * self.loss(self(batch), batch["labels"], whole)
        size: Any = float(len(whole))  # since gloo takes no mean of whole numbers
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=ranks.world() > 1, batch_size=size)
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        """Collect the logits of one dev batch."""
        self._collect(batch)

    def test_step(self, batch: Batch, index: int) -> None:
        """Collect the logits of one test batch."""
        self._collect(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the dev metrics."""
        self.log_dict(self._score("dev"))

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self.log_dict(self._score("test"))

    def _collect(self, batch: Batch) -> None:
        logits = self(batch).float()
        indices = batch["indices"].tolist()
        self._losses[indices[0]] = float(self.loss(logits, batch["labels"])) * len(indices)
        rows = logits.cpu().numpy()
        if logits.ndim == 3:  # a row of logits a token: those of the padding mean nothing
            lengths = batch["inputs"]["attention_mask"].sum(dim=1).tolist()
            rows = [row[:length] for row, length in zip(rows, lengths, strict=True)]
        self._outputs |= dict(zip(indices, rows, strict=True))

    def _score(self, split: str) -> dict[str, float]:
        """Measure what all ranks collected, each example once, put into the split's order."""
        outputs: dict[int, np.ndarray] = {}
        losses: dict[int, float] = {}
        for theirs, lost in ranks.gathered((self._outputs, self._losses)):
            outputs |= theirs
            losses |= lost
        self._outputs, self._losses = {}, {}
        self.logits[split] = [outputs[index] for index in sorted(outputs)]
        loss = math.fsum(losses.values()) / len(outputs)  # the same sum in whatever order they came
        return {f"{split}/{k}": v for k, v in {"loss": loss, **self.task.score(split, self.logits[split])}.items()}

    def trained(self) -> dict[str, Tensor]:
        """Return the weights that this run trains, by name."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save only what trains: the rest is the pretrained model, which is on disk already."""
        checkpoint["state_dict"] = self.trained()

    def configure_optimizers(self) -> Any:
        """Return AdamW over what trains, and a linear schedule with warm-up."""
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=self.optim.lr, weight_decay=self.optim.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = round(self.optim.warmup * (steps if self.optim.warmup < 1 else 1))
        schedule = get_linear_schedule_with_warmup(optimizer, warmup, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
