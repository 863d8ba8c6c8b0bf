"""The cut: one model as two modules, the frozen lower part and the upper part that trains."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from er.encoders.families import family_of
from er.encoders.parts import Entry, exchanged, twin
from er.errors import UserError

READ = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "head_mask")
"""The inputs that reach embeddings and layers, where a family reads them; labels and the like are the head's."""

# `adapters` hangs the prefixes and shared weights of all its adapters on the encoder and again on every layer. They
# act in the adapted layers only, which lie above the cut, so the lower part neither freezes nor counts them.
NO_LAYERS_OWN = re.compile(r"(^|\.)(prefix_tuning|shared_parameters)\.")


class Lower(nn.Module):
    """The embeddings and the first `k` layers: the part that is frozen and cached.

    Always in eval mode, on its own copies of the modules, so that neither a trainer's `.train()` nor the mode of the
    model it was cut from can switch dropout on. The weights are the model's own.
    """

    def __init__(self, model: PreTrainedModel, k: int) -> None:
        super().__init__()
        family = family_of(model.config.model_type)
        self.k = k
        self.config = model.config
        self.shared = family.shared
        self.encoder = twin(family.lower(model, k))
        self.reads = _read_by(self.encoder)
        self.train(False)
        for name, parameter in self.encoder.named_parameters(remove_duplicate=False):
            if self.acts(name):
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> Lower:
        """Stay in eval mode: dropout here would poison the cache."""
        return super().train(False)

    @torch.no_grad()  # not inference_mode: the layers above must backpropagate from this
    def forward(self, **inputs: Any) -> Tensor:
        """Return `hidden_states[k]`, shape `(batch, tokens, hidden)`; inputs that only a head reads are ignored."""
        read = {name: inputs[name] for name in self.reads if name in inputs}
        hidden: Tensor = self.encoder(**read, return_dict=True).last_hidden_state
        return hidden

    def acts(self, name: str) -> bool:
        """Whether the weight of this name (in `self.encoder`) has a say in the activations."""
        return not NO_LAYERS_OWN.search(name) and (self.k > 0 or not name.startswith(self.shared))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights that make the activations, by name within the encoder, sorted."""
        weights = self.encoder.state_dict(keep_vars=True)
        yield from ((name, weights[name]) for name in sorted(weights) if self.acts(name))


class Between(nn.Module):
    """The layers from `j` up to `k`: turns the activation at one cut into the one at a deeper cut.

    In eval mode like everything below a cut, but gradients pass through it, down to what it is given.
    """

    def __init__(self, model: PreTrainedModel, j: int, k: int) -> None:
        super().__init__()
        family = family_of(model.config.model_type)
        encoder, depth = family.encoder(model), family.depth(model)
        self.entry = Entry()
        parts = family.above(encoder, j, depth, self.entry) | family.below(encoder, k, depth)
        self.encoder = twin(exchanged(encoder, parts))
        self.reads = _read_by(self.encoder)
        self.train(False)

    def train(self, mode: bool = True) -> Between:
        """Stay in eval mode, as the lower part does."""
        return super().train(False)

    def forward(self, hidden: Tensor, /, **inputs: Any) -> Tensor:
        """Return `hidden_states[k]`, given `hidden_states[j]` of the same inputs."""
        read = {name: inputs[name] for name in self.reads if name in inputs}
        with self.entry.holding(hidden):
            deeper: Tensor = self.encoder(**read, return_dict=True).last_hidden_state
        return deeper


class Upper(nn.Module):
    """The layers from `k` on, and the head: `self.model` is the whole model, begun at layer `k`.

    Layers keep their indices and weights their names, so adapters and checkpoints fit both this and the whole model.
    What lies below is not in it: when the model and the lower part are dropped, its memory is free.
    """

    def __init__(self, model: PreTrainedModel, k: int) -> None:
        super().__init__()
        self.k = k
        self.entry = Entry()
        self.model: Any = family_of(model.config.model_type).upper(model, k, self.entry)
        self.training = model.training
        for module in self.model.modules():
            if "loaded_embeddings" in vars(module):
                vars(module)["loaded_embeddings"] = {}  # where `adapters` keeps the embeddings out of sight

    def forward(self, hidden: Tensor, /, **inputs: Any) -> Any:
        """Return what `model(**inputs)` returns, given the activation of the same inputs."""
        self._check(hidden, inputs)
        with self.entry.holding(hidden):
            return self.model(**inputs)

    def _check(self, hidden: Tensor, inputs: dict[str, Any]) -> None:
        ids = inputs.get("input_ids")
        if ids is not None and ids.shape != hidden.shape[:2]:
            found, right = tuple(hidden.shape[:2]), tuple(ids.shape)
            raise UserError(f"An activation of {found} (inputs, tokens) is not that of {right}.")
        for name in ("output_hidden_states", "output_attentions"):
            wanted = inputs.get(name)
            if self.k > 0 and (getattr(self.model.config, name) if wanted is None else wanted):
                raise UserError(f"{name} is not to be had from layer {self.k} on: the layers below do not run.")


def split(model: PreTrainedModel, k: int) -> tuple[Lower, Upper]:
    """Cut a model before layer `k`, so that `upper(lower(**x), **x)` equals `model(**x)`.

    `k` goes from 0 (the embeddings are below) to N (all layers are; then the activation is the last hidden state as the
    model returns it, behind any final norm). Bare models, models with a head, and models with adapters above the cut
    can be cut. The model stays whole and usable, and shares its weights with both parts: training the upper part trains
    the model. The weights that make the activations are frozen, in the model as well (`requires_grad`), and with them
    those that layers above the cut also read: relative position tables, DeBERTa's norm of them, T5's tied embeddings.

    Initialise `adapters` before the cut, and leave the layers below `k` out of every adapter. To change device or
    dtype, move the model before it is cut, or both parts.

    >>> lower, upper = split(model, 2)
    >>> activation = lower(**inputs)  # hidden_states[2] of the whole model
    >>> torch.equal(upper(activation, **inputs).logits, model(**inputs).logits)
    True
    """
    depth = family_of(model.config.model_type).depth(model)
    if not 0 <= k <= depth:
        raise UserError(f"cut={k} lies outside the model, which has {depth} layers. Choose a layer from 0 to {depth}.")
    return Lower(model, k), Upper(model, k)


def _read_by(encoder: nn.Module) -> tuple[str, ...]:
    forwards = [vars(kind)["forward"] for kind in type(encoder).__mro__ if "forward" in vars(kind)]
    known = {name for forward in forwards for name in inspect.signature(forward).parameters}
    return tuple(name for name in READ if name in known)  # `adapters` hides a signature behind its own, in a subclass
