"""Cross-model reuse: what a source model made of a text, added to the embeddings of the model that trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from er import encoders
from er.checks import cut_layer
from er.config import Model, Source
from er.encoders import Between, Lower, load_model, split
from er.encoders.cut import READ
from er.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from er.training.data import Split


class Consumer(nn.Module):
    """A model whose embeddings are joined by what a source made of the same tokens, projected to its width.

    Its embeddings and its layers below `k` are frozen, and without dropout. Gradients pass through those layers, since
    the projection below them trains: of this model nothing can be cached.
    """

    def __init__(self, model: PreTrainedModel, k: int, width: int, source: Source) -> None:
        super().__init__()
        self.above = split(model, k)[1]
        self.projection = nn.Sequential(
            nn.Linear(width, source.width), nn.ReLU(), nn.Linear(source.width, model.config.hidden_size)
        )
        self.embeddings, self.below = Lower(model, 0), Between(model, 0, k)
        self.scale = source.scale

    def forward(self, hidden: Tensor, /, **inputs: Any) -> Any:
        """Return what `model(**inputs)` would, had its embeddings been joined by the source's activation."""
        own = {name: value for name, value in inputs.items() if name not in READ or name in self.below.reads}
        joined = self.embeddings(**own) + self.scale * self.projection(hidden)
        return self.above(self.below(joined, **own), **own)


def parts(model: PreTrainedModel, k: int, source: Source, seed: int) -> tuple[Lower, Consumer]:
    """Return the source's lower part, which is cached, and the consumer of its activations."""
    lower = Lower(load_model(source.model), source_layer(source))
    torch.manual_seed(seed)  # the projection starts the same, whatever was drawn to load the models
    return lower, Consumer(model, k, lower.config.hidden_size, source)


def source_layer(source: Source) -> int:
    """Return the layer of the source whose activations are used."""
    k = cut_layer(source.cut, encoders.depth(encoders.load_config(source.model)))
    if k == 0:
        raise UserError(
            f"method.source.cut={source.cut} is layer 0, so the cache would hold embeddings, which cost nothing to "
            "compute. Set it to 1 or more; 1.0 is the source's last layer."
        )
    return k


def named(source: Source) -> dict[str, Any]:
    """List what makes a source this source, for the identity of a run."""
    model = {"name": source.model.name, "source": encoders.source(source.model), "random": source.model.random}
    return {"model": model, "cut": source_layer(source), "width": source.width, "scale": source.scale}


def aligned(ours: dict[str, Split], theirs: dict[str, Split], consumer: Model, source: Model) -> dict[str, Split]:
    """Check that consumer and source read the same tokens, and return these with the type ids that either has."""
    for name, own in ours.items():
        mine, other = own.tokens, theirs[name].tokens
        pairs = enumerate(zip(mine.columns["input_ids"], other.columns["input_ids"], strict=False))
        different = next((i for i, (a, b) in pairs if not np.array_equal(a, b)), None)
        if different is not None or len(mine) != len(other) or mine.padding != other.padding:
            raise UserError(
                f"{source.name} cannot be the source of {consumer.name}: their tokenizers disagree, for instance in "
                f"number {different or 0} of {name}. An activation must belong to the same token in both. "
                "Choose models with one vocabulary (model=..., model@method.source.model=...)."
            )
        mine.columns = other.columns | mine.columns
    return ours
