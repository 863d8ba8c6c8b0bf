"""What stands on top of the encoder: a head per reading of the hidden states, the same in every arm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from er.choices import Head

WIDTH = 256
"""Width of the linear head's middle, as in the paper's code."""

DROPOUT = 0.1
"""Before the token head, as in the paper's code."""

STOCK = {
    "sequence": AutoModelForSequenceClassification,
    "token": AutoModelForTokenClassification,
    "span": AutoModelForQuestionAnswering,
}
"""The `transformers` class with the stock head, by what a task's head reads."""


class FirstTokenHead(nn.Module):
    """First token -> Linear(256) -> Linear(outputs), without activation or dropout, as in the paper's code."""

    def __init__(self, hidden: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(hidden, WIDTH), nn.Linear(WIDTH, outputs))

    def forward(self, output: Any) -> Tensor:
        """Return logits `(batch, outputs)` of an encoder's output."""
        return self.layers(output.last_hidden_state[:, 0])  # type: ignore[no-any-return]


class EveryTokenHead(nn.Module):
    """Every token -> Linear(outputs): the paper's heads for tags, behind dropout, and for the ends of an answer."""

    def __init__(self, hidden: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, outputs))

    def forward(self, output: Any) -> Tensor:
        """Return logits `(batch, tokens, outputs)` of an encoder's output."""
        return self.layers(output.last_hidden_state)  # type: ignore[no-any-return]


class StockHead(nn.Module):
    """Stands for the head inside a `transformers` model, whose output already holds the logits."""

    def forward(self, output: Any) -> Tensor:
        """Return the logits that the model computed."""
        if "start_logits" in output:
            return torch.stack([output.start_logits, output.end_logits], dim=-1)
        return output.logits  # type: ignore[no-any-return]


LINEAR: dict[str, Callable[[int, int], nn.Module]] = {
    "sequence": FirstTokenHead,
    "token": partial(EveryTokenHead, dropout=DROPOUT),
    "span": EveryTokenHead,
}
"""Our own head, by what a task's head reads."""


def auto_class(head: Head, reads: str) -> Any:
    """Return the `transformers` class to load: bare, or with its stock head."""
    return STOCK[reads] if head is Head.stock else AutoModel


def build(head: Head, reads: str, hidden: int, outputs: int) -> nn.Module:
    """Build the head that turns the encoder's output into logits."""
    return StockHead() if head is Head.stock else LINEAR[reads](hidden, outputs)


def within(logits: Tensor, mask: Tensor) -> Tensor:
    """Leave no chance to padding, whose hidden states differ between the cache and the lower layers."""
    return logits.masked_fill(mask[..., None] == 0, float("-inf"))


def sequence_loss(logits: Tensor, labels: Tensor, whole: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of the labelled examples; zero where a batch has none.

    Where a batch is only a part, `whole` has the labels of all parts, and their losses add up to that of the whole.
    """
    total = cross_entropy(logits.float(), labels, ignore_index=-100, reduction="sum")
    return total / torch.clamp(((labels if whole is None else whole) != -100).sum(), min=1)


def token_loss(logits: Tensor, labels: Tensor, whole: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of the labelled tokens; zero where a batch has none."""
    return sequence_loss(logits.flatten(0, 1), labels.flatten(), whole)


def span_loss(logits: Tensor, labels: Tensor, whole: Tensor | None = None) -> Tensor:
    """Mean of the cross-entropies of where an answer begins and where it ends, over the tokens of the input."""
    ends = zip(logits.unbind(dim=-1), labels.T, (labels if whole is None else whole).T, strict=True)
    begin, end = (sequence_loss(*each) for each in ends)
    return (begin + end) / 2


LOSSES: dict[str, Callable[..., Tensor]] = {"sequence": sequence_loss, "token": token_loss, "span": span_loss}
