"""What stands on top of the encoder: a head per reading of the hidden states, the same in every arm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModel, AutoModelForSequenceClassification

from er.config import Head

WIDTH = 256
"""Width of the linear head's middle, as in the paper's code."""

STOCK = {"sequence": AutoModelForSequenceClassification}
"""The `transformers` class with the stock head, by what a task's head reads."""


class FirstTokenHead(nn.Module):
    """First token -> Linear(256) -> Linear(outputs), without activation or dropout, as in the paper's code."""

    def __init__(self, hidden: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(hidden, WIDTH), nn.Linear(WIDTH, outputs))

    def forward(self, output: Any) -> Tensor:
        """Return logits `(batch, outputs)` of an encoder's output."""
        return self.layers(output.last_hidden_state[:, 0])  # type: ignore[no-any-return]


class StockHead(nn.Module):
    """Stands for the head inside a `transformers` model, whose output already holds the logits."""

    def forward(self, output: Any) -> Tensor:
        """Return the logits that the model computed."""
        return output.logits  # type: ignore[no-any-return]


LINEAR: dict[str, Callable[[int, int], nn.Module]] = {"sequence": FirstTokenHead}
"""Our own head, by what a task's head reads."""


def auto_class(head: Head, reads: str) -> Any:
    """Return the `transformers` class to load: bare, or with its stock head."""
    return STOCK[reads] if head is Head.stock else AutoModel


def build(head: Head, reads: str, hidden: int, outputs: int) -> nn.Module:
    """Build the head that turns the encoder's output into logits."""
    return StockHead() if head is Head.stock else LINEAR[reads](hidden, outputs)


def sequence_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the labelled examples; zero where a batch has none."""
    total = cross_entropy(logits.float(), labels, ignore_index=-100, reduction="sum")
    return total / torch.clamp((labels != -100).sum(), min=1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"sequence": sequence_loss}
