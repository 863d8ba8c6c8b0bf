"""What a family of encoders is: where the parts of its models lie, and what stands in for them."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from er.encoders.parts import Entry, PassOn, exchanged

Parts = dict[str, nn.Module | None]

SECOND_NAME = "prompt_tuning.base_model_embeddings"
"""Where `adapters.init` hangs the word embeddings once more, whether or not there will be prompts."""


class Family:
    """Laid out as BERT is; a family's own file overrides what differs.

    `below` and `above` name the parts of an encoder, by path, that are exchanged to get its lower and its upper half.
    """

    types: ClassVar[tuple[str, ...]] = ()
    """The `model_type` of the configurations that are of this family."""
    layers = "encoder.layer"
    embeddings = "embeddings"
    norm: str | None = None
    """What follows the last layer: part of `hidden_states[N]`, and of no earlier one."""
    shared: tuple[str, ...] = ()
    """What layers on both sides of the cut read: frozen, and in the fingerprint, once a layer lies below."""
    bare: type[PreTrainedModel] | None = None
    """The encoder without a head, where `AutoModel` would give more than that."""
    pass_on: type[PassOn] = PassOn
    placeable = True
    """Whether a model takes `position_ids`, or needs none, so that a text can stand anywhere in an input."""
    samples: ClassVar[dict[str, dict[str, Any]]] = {"": {}}
    """The smallest configurations worth a test, by variant: `er.testing` builds every test of the family from them."""

    def path(self, model: PreTrainedModel) -> str:
        """Return where the encoder lies in a model: `""` where it is the model."""
        encoder = model.base_model
        return next(str(name) for name, module in model.named_modules() if module is encoder)

    def encoder(self, model: PreTrainedModel) -> nn.Module:
        """Return the module that holds embeddings and layers."""
        encoder: nn.Module = model.get_submodule(self.path(model))
        return encoder

    def depth(self, model: PreTrainedModel) -> int:
        """Return N, the number of layers that the model really has."""
        return len(self.encoder(model).get_submodule(self.layers)._modules)

    def positions(self, config: PretrainedConfig) -> int | None:
        """Return the longest input in tokens, `None` where positions are unbounded."""
        return getattr(config, "max_position_embeddings", None)

    def first_position(self, config: PretrainedConfig) -> int | None:
        """Return the `position_ids` of an input's first token, `None` where only distances between tokens count."""
        return 0

    def below(self, encoder: nn.Module, k: int, depth: int) -> Parts:
        """Return what makes an encoder end after `k` layers."""
        parts: Parts = {f"{self.layers}.{i}": self.pass_on() for i in range(k, depth)}
        if encoder._modules.get("pooler") is not None:
            parts["pooler"] = None
        if SECOND_NAME in dict(encoder.named_modules(remove_duplicate=False)):
            parts[SECOND_NAME] = None
        if self.norm and k < depth:
            parts[self.norm] = nn.Identity()
        return parts

    def above(self, encoder: nn.Module, k: int, depth: int, entry: Entry) -> Parts:
        """Return what makes an encoder begin at layer `k`, with the activation that `entry` holds."""
        parts: Parts = {f"{self.layers}.{i}": self.pass_on() for i in range(k)}
        parts[self.embeddings] = entry
        if SECOND_NAME in dict(encoder.named_modules(remove_duplicate=False)):
            parts[SECOND_NAME] = entry
        if self.norm and k == depth:
            parts[self.norm] = nn.Identity()
        return parts

    def lower(self, model: PreTrainedModel, k: int) -> nn.Module:
        """Return the encoder, ending after `k` layers."""
        encoder = self.encoder(model)
        return exchanged(encoder, self.below(encoder, k, self.depth(model)))

    def upper(self, model: PreTrainedModel, k: int, entry: Entry) -> nn.Module:
        """Return the whole model, beginning at layer `k`."""
        encoder = self.encoder(model)
        resumed = exchanged(encoder, self.above(encoder, k, self.depth(model), entry))
        return exchanged(model, {self.path(model): resumed})
