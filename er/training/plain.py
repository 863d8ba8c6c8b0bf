"""Our own head as the stock one of a family: what plain `transformers` loads, and what it computes to rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification

from er.config import Head
from er.errors import UserError
from er.training.heads import STOCK

if TYPE_CHECKING:
    from er.training.trained import Trained

TINY = 2.0**-30
"""A power of two so small that tanh, and a norm that divides by the root of `eps`, are straight lines around zero."""


@dataclass(frozen=True)
class Stock:
    """Where the two layers of a family's head for whole texts lie, and what is between them."""

    dense: str
    activation: str
    out: str


SEQUENCE = {
    "bert": Stock("bert.pooler.dense", "tanh", "classifier"),
    "roberta": Stock("classifier.dense", "tanh", "classifier.out_proj"),
    "xlm-roberta": Stock("classifier.dense", "tanh", "classifier.out_proj"),
    "mpnet": Stock("classifier.dense", "tanh", "classifier.out_proj"),
    "electra": Stock("classifier.dense", "gelu", "classifier.out_proj"),
    "distilbert": Stock("pre_classifier", "relu", "classifier"),
    "deberta-v2": Stock("pooler.dense", "linear", "classifier"),
    "modernbert": Stock("head.dense", "norm", "classifier"),
}
"""By model type. DeBERTa's and ModernBERT's activation is an option of theirs, so it can be none."""

ONE_LAYER = {"token": "classifier", "span": "qa_outputs"}
"""Where the one layer of the other heads lies, but for ModernBERT's, which are all alike."""


def linear_map(weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return our head's layers as one: without activations between them, that is what they are."""
    names = sorted({name.rpartition(".")[0] for name in weights if name.startswith("head.")})
    weight, bias = weights[f"{names[0]}.weight"], weights[f"{names[0]}.bias"]
    for name in names[1:]:
        above = weights[f"{name}.weight"].double()
        weight, bias = above @ weight.double(), above @ bias.double() + weights[f"{name}.bias"].double()
    return weight.float(), bias.float()


def stock_class(model_type: str, reads: str) -> Any:
    """Return the `transformers` class that can hold our head.

    T5's others read the decoder. Its tags can say the same: those of the first token, or of every one.
    """
    return AutoModelForTokenClassification if model_type == "t5" else STOCK[reads]


@torch.no_grad()
def express(model: Any, reads: str, weight: Tensor, bias: Tensor) -> None:
    """Make a stock head compute the linear map, of the first token or of every one, as our own head does."""
    kind = model.config.model_type
    if kind == "t5":
        _set(model.classifier, weight, bias)
    elif reads in ONE_LAYER and kind != "modernbert":
        _set(model.get_submodule(ONE_LAYER[reads]), weight, bias)
    else:
        stock = SEQUENCE[kind]
        THROUGH[stock.activation](model, model.get_submodule(stock.dense), model.get_submodule(stock.out), weight, bias)


def _through_tanh(model: Any, dense: nn.Linear, out: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    """Of tiny numbers, tanh is what it is given."""
    _set(dense, TINY * torch.eye(len(dense.weight)), torch.zeros(len(dense.weight)))
    _set(out, weight / TINY, bias)


def _through_gate(model: Any, dense: nn.Linear, out: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    """Of ReLU and GELU, f(x) - f(-x) = x."""
    both, back = _both_signs(dense, weight)
    _set(dense, both, torch.zeros(len(both)))
    _set(out, back, bias)


def _through_nothing(model: Any, dense: nn.Linear, out: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    model.config.pooler_hidden_act = "linear"
    _set(dense, torch.eye(len(dense.weight)), torch.zeros(len(dense.weight)))
    _set(out, weight, bias)


def _through_norm(model: Any, dense: nn.Linear, out: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    """Of tiny numbers whose mean is zero, a norm is a division by the root of its `eps`."""
    model.config.classifier_activation, model.config.classifier_pooling = "linear", "cls"
    norm = model.head.norm
    both, back = _both_signs(dense, weight)
    _set(dense, TINY * both, torch.zeros(len(both)))
    _set(norm, torch.ones(len(both)), torch.zeros(len(both)))
    _set(out, back / 2 * norm.eps**0.5 / TINY, bias)


THROUGH = {
    "tanh": _through_tanh,
    "gelu": _through_gate,
    "relu": _through_gate,
    "linear": _through_nothing,
    "norm": _through_norm,
}
"""How a linear map passes through a head, by what is between its two layers."""


def _both_signs(dense: nn.Linear, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return a first layer that computes every output and its negative, and a second that takes the difference."""
    count, width = len(weight), len(dense.weight)
    if 2 * count > width:
        raise UserError(
            f"{count} labels do not fit twice into the {width} numbers between the two layers of this model's stock "
            "head. Train with method.head=stock to export it."
        )
    both = torch.zeros_like(dense.weight)
    both[:count], both[count : 2 * count] = weight, -weight
    back = torch.zeros(count, width)
    back[:, :count], back[:, count : 2 * count] = torch.eye(count), -torch.eye(count)
    return both, back


def layers(own: dict[str, Tensor], trained: Trained, config: Any) -> tuple[list[tuple[Tensor, Tensor]], str | None]:
    """Return the linear layers of the head that a run trained, from below, and what is between them."""
    if trained.config.method.head is Head.linear:
        return [linear_map(trained.weights)], None
    if trained.head in ONE_LAYER:
        names, activation = [ONE_LAYER[trained.head]], None
    else:
        stock = SEQUENCE[config.model_type]
        names, activation = [stock.dense, stock.out], stock.activation
    if activation == "linear":
        activation = config.pooler_hidden_act  # as it was trained
    return [(own[f"{name}.weight"], own[f"{name}.bias"]) for name in names], activation


def _set(layer: Any, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight)
    if layer.bias is not None:
        layer.bias.copy_(bias)
