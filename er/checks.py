"""What a configuration may not say, and what its cut and method come to."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from er.choices import Encode, Kind, Switch, Trains
from er.config import Config
from er.errors import UserError

LEAST = {
    "task.max_windows": 1,
    "task.max_answer": 1,
    "task.stride": 0,
    "task.offset": 1,
    "optim.weight_decay": 0,
    "optim.warmup": 0,
    "optim.patience": 0,
    "optim.clip": 0,
    "cache.segment_mb": 1,
    "cache.batch_tokens": 1,
    "trainer.devices": 1,
    "together": 1,
    "bench.batches": 1,
    "bench.warmup": 0,
    "search.epochs": 1,
    "search.examples": 1,
    "search.loss": 0,
    "report.figures": 0,
    "bench.inference_batch_size": 1,
    "seed": 0,
}
"""The least that a number may be."""

SEEDS = 2**32
"""How many seeds there are."""

READ_BY = {
    **dict.fromkeys(("action", "space", "repair", "older_than", "max_bytes", "dry_run", "url"), ("cache",)),
    "overwrite": ("predict", "export"),
    "run": ("predict", "export", "cache"),
    **dict.fromkeys(("input", "predict"), ("predict", "cache")),
    "output": ("predict",),
    "to": ("export",),
    "bench": ("bench",),
    "plan": ("plan",),
    "skip_invalid": ("train", "plan"),
    "together": ("train", "plan"),
    "points": ("train",),
    "report": ("report",),
    "search": ("search_cut",),
    "trainer.devices": ("train", "plan"),
}
"""Options that some verbs read and the others would ignore in silence."""


def settings(cfg: DictConfig) -> Config:
    """Turn a composed configuration into checked dataclasses."""
    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        check_verb(str(hydra.job.config_name), hydra.overrides.task)
    try:
        config = OmegaConf.to_object(cfg)
    except MissingMandatoryValue:
        missing = sorted(OmegaConf.missing_keys(cfg))  # slow, so it is only asked for where there are any
        raise UserError(f"No value for {', '.join(missing)}: set it on the command line ({missing[0]}=...).") from None
    assert isinstance(config, Config)
    check(config)
    return config


def check_verb(verb: str, overrides: Iterable[str]) -> None:
    """Refuse an option that only other verbs read."""
    for override in overrides:
        name = override.lstrip("+~").partition("=")[0]
        readers = READ_BY.get(name) or READ_BY.get(name.partition(".")[0]) or (verb,)
        if verb not in readers:
            those = " and ".join(f"er {each.replace('_', '-')}" for each in readers)
            raise UserError(f"{override}: er {verb.replace('_', '-')} does not read this; {those} would. Leave it out.")


def check(config: Config) -> None:
    """Refuse combinations that cannot mean anything."""
    method, optim = config.method, config.optim
    if method.trains is Trains.adapters and method.adapter is None:
        raise UserError(f"method={method.name} trains adapters but names none: set method.adapter.kind.")
    if method.source is not None and (method.trains is not Trains.all or not method.recycles):
        raise UserError(
            f"method={method.name} has a source, which needs method.trains=all and method.recycles=true: "
            "the projection of its activations is among what trains."
        )
    for name, value in {"epochs": optim.epochs, "batch_size": optim.batch_size, "lr": optim.lr}.items():
        if not value > 0:
            raise UserError(f"optim.{name}={value}: must be greater than 0.")
    for option, least in LEAST.items():
        number = attrgetter(option)(config)
        if number is not None and not number >= least:  # which nan is not, either
            raise UserError(f"{option}={number}: must be at least {least}.")
    _check_limit(config.task.limit)
    for noun, name in {"task": config.task.name, "model": config.model.name, "method": method.name}.items():
        if not name.strip(". ") or set(name) & {"/", "\\"}:
            raise UserError(f"{noun}.name={name}: a run's folder is called after it. Choose a name without slashes.")
    if config.task.label in config.task.text:
        raise UserError(f"task.label={config.task.label} is also the text: name the column that holds the answer.")
    if config.seed >= SEEDS:
        raise UserError(f"seed={config.seed}: must be below {SEEDS}, as NumPy wants it.")
    if separate(config):
        _check_separate(config)


def _check_limit(limit: Any) -> None:
    whole = isinstance(limit, int) and not isinstance(limit, bool) and limit >= 1
    if limit is not None and not whole and not (isinstance(limit, float) and 0 < limit <= 1):
        raise UserError(f"task.limit={limit}: give a number of training examples, at least 1, or a fraction 0.0..1.0.")


def separate(config: Config) -> bool:
    """Tell whether the two texts of an input run apart through the layers below the cut."""
    return config.task.encode is Encode.separate


def _check_separate(config: Config) -> None:
    """Refuse to encode apart what is no pair, or what sees both texts below the cut."""
    task, method = config.task, config.method
    if task.kind is Kind.tagging or (task.kind is Kind.classification and len(task.text) < 2):
        raise UserError(
            f"task.encode=separate: an input of task={task.name} is one text. "
            "Only pairs, and questions with their passages, can be encoded apart."
        )
    if not method.recycles or method.source is not None:
        raise UserError(
            f"task.encode=separate does not go with method={method.name}: only lower layers that are frozen, with "
            "nothing below that trains, can run on each text alone. Choose reduced, reduced_adapters or bitfit."
        )


def cut_layer(cut: Any, depth: int) -> int:
    """Return the layer that `cut` means in an encoder of `depth` layers.

    A whole number is a layer; a fraction is rounded to the nearest layer, as the paper's 25 % of 6 layers.
    """
    if isinstance(cut, bool) or not isinstance(cut, int | float):
        raise UserError(f"cut={cut}: give one layer (6) or one fraction (0.5); only `er cache` takes several.")
    k = round(cut * depth) if isinstance(cut, float) else cut
    if (isinstance(cut, float) and not 0 <= cut <= 1) or not 0 <= k <= depth:
        raise UserError(f"cut={cut}: this encoder has {depth} layers; give a layer 0..{depth} or a fraction 0.0..1.0.")
    return k


def check_cut(config: Config, k: int) -> None:
    """Refuse to cache what costs nothing to compute."""
    if config.cache.mode is Switch.read:
        raise UserError("cache.mode=read is for er predict. Set it to on, or to off to recompute the frozen layers.")
    if recycled(config) and k == 0 and config.method.source is None:
        raise UserError(
            f"method={config.method.name}: cut={config.method.cut} is layer 0, so the cache would hold embeddings, "
            "which cost nothing to compute. Set cut to 1 or more, or cache.mode=off to train above them."
        )


def check_meeting(config: Config, k: int, depth: int) -> None:
    """Refuse to join two texts above all layers, where neither would ever see the other."""
    if separate(config) and k == depth:
        raise UserError(
            f"task.encode=separate, cut at layer {k} of {depth}: no layer is left in which one text sees the other. "
            "Choose a lower cut, or task.encode=joint."
        )


def recycled(config: Config) -> bool:
    """Tell whether this run reads its lower activations from the cache."""
    return config.method.recycles and config.cache.mode is Switch.on
