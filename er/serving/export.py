"""A trained run as an ordinary checkpoint, or as an adapter: what plain `transformers` and `adapters` load."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from er import encoders, results
from er.choices import Head, Trains
from er.errors import UserError
from er.serving import card, plain
from er.serving.trained import Trained, check_joint, load_run
from er.training import adapters
from er.training.heads import STOCK

log = logging.getLogger(__name__)


def export(run: str | Path, to: str | Path, overwrite: bool = False) -> None:
    """Write the model of a finished run to a folder that needs nothing of this package.

    A run that trained adapters becomes an adapter with its head, any other a whole checkpoint; either with tokenizer,
    label names, a model card, and the record of the run.
    """
    target = Path(to).expanduser()
    _check_target(target, overwrite)
    trained = load_run(run)
    check_joint(trained)
    adapter = trained.config.method.adapter is not None
    model = with_adapter(trained) if adapter else checkpoint(trained)

    def write(folder: Path) -> None:
        if adapter:
            adapters.save(model, folder)
        else:
            model.save_pretrained(folder)
        encoders.load_tokenizer(trained.config.model).save_pretrained(folder)
        results.write(folder / results.NAME, trained.result)
        results.write_text(folder / "README.md", card.card(trained, type(model).__name__))

    _publish(target, write)
    log.info("%s: %s of %s", target, type(model).__name__, trained.directory)


def checkpoint(trained: Trained) -> Any:
    """Return the whole model, as a class of `transformers`, with everything that the run trained in it."""
    config = trained.config
    stock = config.method.head is Head.stock
    model_type = encoders.load_config(config.model).model_type
    kind = STOCK[trained.head] if stock else plain.stock_class(model_type, trained.head)
    torch.manual_seed(config.seed)
    model: Any = encoders.load_model(config.model, kind, num_labels=trained.outputs)
    if config.method.adapter is not None:
        adapters.add_adapter(model, config.method.adapter, trained.k)
    put(model if stock else model.base_model, own(trained), trained)
    if not stock:
        plain.express(model, trained.head, plain.head_of(trained.weights))
    model.config.id2label = dict(enumerate(trained.labels))
    model.config.label2id = {label: i for i, label in enumerate(trained.labels)}
    return model.eval()


def with_adapter(trained: Trained) -> Any:
    """Return the base model with the adapter that the run trained and its head.

    It is a class of `adapters`, or, of a family for which that has none with a head of ours, one of `transformers`.
    """
    if trained.config.method.trains is not Trains.adapters:
        raise UserError(
            f"{trained.directory}: an adapter holds nothing else that trained, and method={trained.config.method.name} "
            "trained more. Use `er predict`, or train with method=reduced_adapters."
        )
    kind = adapters.hub_class(encoders.load_config(trained.config.model).model_type)
    return checkpoint(trained) if kind is None else _flexible(trained, kind)


@torch.no_grad()
def _flexible(trained: Trained, kind: Any) -> Any:
    """Return the model of a class to which heads can be added."""
    method = trained.config.method
    assert method.adapter is not None
    model: Any = encoders.load_model(trained.config.model, kind)
    adapters.add_adapter(model, method.adapter, trained.k)
    layers, activation = plain.layers(own(trained), trained, model.config)
    prefix = f"{model.base_model_prefix}." if method.head is Head.stock else ""
    inside = {name.removeprefix(prefix): w for name, w in own(trained).items() if adapters.is_adapter(name)}
    put(model.base_model, inside, trained)
    head = adapters.add_head(model, trained.head, trained.labels, len(layers), activation)
    for layer, (weight, bias) in zip(head, layers, strict=True):
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return model.eval()


def put(encoder: Any, weights: dict[str, Tensor], trained: Trained) -> None:
    """Put weights that a run trained into the model that they are of."""
    unexpected = encoder.load_state_dict(weights, strict=False).unexpected_keys
    if unexpected:
        raise UserError(f"{trained.directory}: weights that the model does not have: {', '.join(unexpected[:3])}.")


def own(trained: Trained) -> dict[str, Tensor]:
    """Return what a run trained of its model, by the model's own names."""
    above = "upper.model." if trained.config.method.recycles else "upper."
    if odd := [name for name in trained.weights if not name.startswith((above, "head."))]:
        raise UserError(
            f"{trained.directory}: {odd[0]} is shared with the layers below the cut, and the run recomputed those. "
            "Train it with cache.mode=on to export it."
        )
    return {name.removeprefix(above): weight for name, weight in trained.weights.items() if name.startswith(above)}


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not overwrite:
        raise UserError(f"to={target} exists already. Choose another folder, or set overwrite=true.")
    if not (target / results.NAME).is_file() or not (target / "README.md").is_file():
        raise UserError(f"to={target} holds something else than an export of er, so it is not overwritten. Remove it.")


def _publish(target: Path, write: Callable[[Path], None]) -> None:
    """Make the folder appear whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=target.parent) as temporary:
        whole = Path(temporary) / "whole"
        whole.mkdir()
        write(whole)
        if target.exists():
            target.rename(Path(temporary) / "before")
        whole.rename(target)
