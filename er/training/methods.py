"""From a method's name to modules: what is below the cut, what is above it, and what trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from er.choices import Head, Trains
from er.config import Config
from er.encoders import load_model, split
from er.errors import UserError
from er.training import cross_model, heads
from er.training.adapters import add_adapter, is_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from er.encoders import Lower


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


class Learned(Protocol):
    """What is to be learned, as far as it shapes a model."""

    @property
    def head(self) -> str:
        """What the head reads: `sequence`, `token` or `span`."""

    @property
    def outputs(self) -> int:
        """Width of the head's last layer."""


def assemble(config: Config, k: int, task: Learned) -> Parts:
    """Load the model, add what the method adds, cut it, and freeze what does not train."""
    return prepared(load(config, task), config, k, task)


def load(config: Config, task: Learned) -> PreTrainedModel:
    """Load the model with the head that it needs for a task, and no more."""
    extra = {"num_labels": task.outputs} if config.method.head is Head.stock else {}
    model = load_model(config.model, heads.auto_class(config.method.head, task.head), **extra)
    drop_unused_pooler(model, config.method.head)
    return model


def prepared(model: PreTrainedModel, config: Config, k: int, task: Learned) -> Parts:
    """Turn a loaded model into what the method makes of it."""
    method = config.method
    if method.adapter is not None:
        add_adapter(model, method.adapter, k)
    lower, upper = cut(config, model, k)
    freeze(upper, method.trains, stock_head(model))
    torch.manual_seed(config.seed)  # the head starts the same in every arm, whatever was drawn for adapters before
    head = heads.build(method.head, task.head, model.config.hidden_size, task.outputs)
    return Parts(lower, upper.train(), head, model.config)


def cut(config: Config, model: Any, k: int) -> tuple[Lower | None, nn.Module]:
    """Cut the model as its method has it: in two, behind a source, or not at all."""
    if config.method.source is not None:
        return cross_model.parts(model, k, config.method.source, config.seed)
    return split(model, k) if config.method.recycles else (None, model)


def drop_unused_pooler(model: Any, head: Head) -> None:
    """Remove the pooler that a bare encoder computes for nobody: our head reads the hidden states."""
    if head is Head.linear and getattr(model, "pooler", None) is not None:
        model.pooler = None


def freeze(upper: nn.Module, trains: Trains, stock_head: list[nn.Parameter]) -> None:
    """Leave trainable only what the method trains; `split` has frozen what both sides of the cut share."""
    if trains is Trains.all:
        return
    for name, parameter in upper.named_parameters():
        parameter.requires_grad = parameter.requires_grad and TRAINS[trains](name)
    if trains is Trains.biases and not any(parameter.requires_grad for parameter in upper.parameters()):
        raise UserError(
            "This encoder has no biases above the cut, so method=bitfit would train the head alone: that is "
            "method=probe. Choose a model with biases (BERT, RoBERTa, DeBERTa, ...), a lower cut, or another method."
        )
    for parameter in stock_head:
        parameter.requires_grad = True


def is_bias(name: str) -> bool:
    """Tell whether a parameter of this name is a bias."""
    return name.rpartition(".")[2] == "bias"


TRAINS: dict[Trains, Callable[[str], bool]] = {
    Trains.adapters: is_adapter,
    Trains.biases: is_bias,
    Trains.nothing: lambda name: False,
}
"""Which weights above the cut train, by their name, where not all do."""


def stock_head(model: Any) -> list[nn.Parameter]:
    """List the parameters of a `transformers` model that lie above its layers: the pooler and the head."""
    encoder = model.base_model
    pooler = getattr(encoder, "pooler", None)
    inside = {id(parameter) for parameter in encoder.parameters()}
    above = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    return above + (list(pooler.parameters()) if pooler is not None else [])
