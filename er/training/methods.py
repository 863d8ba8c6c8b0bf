"""From a method's name to modules: what is below the cut, what is above it, and what trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from er.config import Config, Head, Trains
from er.encoders import load_model, split
from er.training import heads
from er.training.adapters import add_adapter, is_adapter

if TYPE_CHECKING:
    from er.encoders import Lower
    from er.tasks import Task


@dataclass
class Parts:
    """One model, taken apart at the cut."""

    lower: Lower | None
    """The frozen part; absent where everything is recomputed and may train."""
    upper: nn.Module
    """The rest of the encoder, or all of it."""
    head: nn.Module
    config: Any
    """The `transformers` configuration."""


def assemble(config: Config, k: int, task: Task) -> Parts:
    """Load the model, add what the method adds, cut it, and freeze what does not train."""
    method = config.method
    kind = heads.auto_class(method.head, task.head)
    extra = {"num_labels": task.outputs} if method.head is Head.stock else {}
    model = load_model(config.model, kind, **extra)
    drop_unused_pooler(model, method.head)
    if method.adapter is not None:
        add_adapter(model, method.adapter, k)
    lower, upper = split(model, k) if method.recycles else (None, model)
    freeze(upper, method.trains, stock_head(model))
    torch.manual_seed(config.seed)  # the head starts the same in every arm, whatever was drawn for adapters before
    head = heads.build(method.head, task.head, model.config.hidden_size, task.outputs)
    return Parts(lower, upper.train(), head, model.config)


def drop_unused_pooler(model: Any, head: Head) -> None:
    """Remove the pooler that a bare encoder computes for nobody: our head reads the hidden states."""
    if head is Head.linear and getattr(model, "pooler", None) is not None:
        model.pooler = None


def freeze(upper: nn.Module, trains: Trains, stock_head: list[nn.Parameter]) -> None:
    """Leave trainable only what the method trains; `split` has frozen what both sides of the cut share."""
    if trains is Trains.all:
        return
    for name, parameter in upper.named_parameters():
        parameter.requires_grad = trains is Trains.adapters and is_adapter(name)
    for parameter in stock_head:
        parameter.requires_grad = True


def stock_head(model: Any) -> list[nn.Parameter]:
    """List the parameters of a `transformers` model that lie above its layers: the pooler and the head."""
    encoder = model.base_model
    pooler = getattr(encoder, "pooler", None)
    inside = {id(parameter) for parameter in encoder.parameters()}
    above = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    return above + (list(pooler.parameters()) if pooler is not None else [])
