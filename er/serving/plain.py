"""Our own head as the stock one of a family: what plain `transformers` loads computes the same, to rounding at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import AutoModelForTokenClassification

from er.choices import Head
from er.errors import UserError
from er.training.heads import STOCK

if TYPE_CHECKING:
    from er.serving.trained import Trained

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


Layer = tuple[Tensor, Tensor]
"""The weight and the bias of a linear layer."""


def head_of(weights: dict[str, Tensor]) -> list[Layer]:
    """Return the layers of the head that a run trained, if it is ours, from below."""
    names = sorted({name.rpartition(".")[0] for name in weights if name.startswith("head.")})
    return [(weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in names]


def linear_map(head: list[Layer]) -> Layer:
    """Return our head's layers as one: without activations between them, that is what they are."""
    weight, bias = head[0]
    for above, shift in head[1:]:
        weight, bias = above.double() @ weight.double(), above.double() @ bias.double() + shift.double()
    return weight.float(), bias.float()


def in_two(head: list[Layer], width: int) -> list[Layer]:
    """Return our head as two layers with `width` numbers between them.

    Its own two, with zeros where they are narrower, compute the same to the bit; others do to rounding.
    """
    if len(head) == 2 and len(head[0][0]) <= width:
        (below, shift), (above, bias) = head
        more = width - len(below)
        return [(pad(below, (0, 0, 0, more)), pad(shift, (0, more))), (pad(above, (0, more)), bias)]
    return [(torch.eye(width), torch.zeros(width)), linear_map(head)]


def stock_class(model_type: str, reads: str) -> Any:
    """Return the `transformers` class that can hold our head.

    T5's others read the decoder. Its tags can say the same: those of the first token, or of every one.
    """
    return AutoModelForTokenClassification if model_type == "t5" else STOCK[reads]


@torch.no_grad()
def express(model: Any, reads: str, head: list[Layer]) -> None:
    """Make a stock head compute what our own does, of the first token or of every one."""
    kind = model.config.model_type
    if kind == "t5":
        _set(model.classifier, *linear_map(head))
    elif reads in ONE_LAYER and kind != "modernbert":
        _set(model.get_submodule(ONE_LAYER[reads]), *linear_map(head))
    else:
        stock = SEQUENCE[kind]
        THROUGH[stock.activation](model, model.get_submodule(stock.dense), model.get_submodule(stock.out), head)


def _through_tanh(model: Any, dense: nn.Linear, out: nn.Linear, head: list[Layer]) -> None:
    """Of tiny numbers, tanh is what it is given."""
    (below, shift), (above, bias) = in_two(head, len(dense.weight))
    _set(dense, TINY * below, TINY * shift)
    _set(out, above / TINY, bias)


def _through_gate(model: Any, dense: nn.Linear, out: nn.Linear, head: list[Layer]) -> None:
    """Of ReLU and GELU, f(x) - f(-x) = x."""
    weight, bias = linear_map(head)
    both, back = _both_signs(dense, weight)
    _set(dense, both, torch.zeros(len(both)))
    _set(out, back, bias)


def _through_nothing(model: Any, dense: nn.Linear, out: nn.Linear, head: list[Layer]) -> None:
    model.config.pooler_hidden_act = "linear"
    below, above = in_two(head, len(dense.weight))
    _set(dense, *below)
    _set(out, *above)


def _through_norm(model: Any, dense: nn.Linear, out: nn.Linear, head: list[Layer]) -> None:
    """Of tiny numbers whose mean is zero, a norm is a division by the root of its `eps`."""
    weight, bias = linear_map(head)
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


def layers(own: dict[str, Tensor], trained: Trained, config: Any) -> tuple[list[Layer], str | None]:
    """Return the linear layers of the head that a run trained, from below, and what is between them."""
    if trained.config.method.head is Head.linear:
        head = head_of(trained.weights)
        return in_two(head, config.hidden_size) if len(head) == 2 else head, None
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
