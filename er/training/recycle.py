"""Makes sure that the activations of a run exist, and tells each split where they lie."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from er.cache import ActivationCache, Built, Encode, Space, build
from er.cache.quota import check_quota
from er.choices import Precision
from er.config import Config
from er.encoders import Lower, fingerprint
from er.training import apart, ranks
from er.training.data import Split, Tokens

log = logging.getLogger(__name__)

AUTOCAST = {Precision.bfloat16: torch.bfloat16, Precision.float16: torch.float16}


def open_cache(config: Config, lower: Lower) -> ActivationCache:
    """Open the space of these frozen layers, freshly loaded, at this cut and in these dtypes."""
    weights = fingerprint(lower, stored=True)
    space = Space(weights, lower.k, config.trainer.precision.name, config.cache.dtype.name)
    named = (config.model if config.method.source is None else config.method.source.model).name
    return ActivationCache(Path(config.paths.cache).expanduser(), space, lower.config.hidden_size, {"model": named})


def recycle(
    cache: ActivationCache, lower: Lower, splits: dict[str, Split], config: Config, device: torch.device
) -> Built:
    """Fill the cache with what these splits miss, and resolve where each of their activations lies."""
    tokens = apart.inputs(splits)
    built = _by_all(fill(cache, tokens, encoder(lower, tokens, config.trainer.precision, device), config))
    log.info("cache %s: %d hits, %d built", cache.directory, built.hits, built.misses)
    for split in splits.values():
        split.cache, split.where = cache, cache.locate(split.tokens.keys())
    where = np.concatenate([split.where for split in splits.values()])
    if where.ndim == 2:
        log.info(apart.saving(where))
    return built


def _by_all(own: Built) -> Built:
    """Add up what all ranks built; to each the others' entries are hits, once they are there."""
    built = ranks.gathered(own)
    misses = sum(each.misses for each in built)
    hits = own.hits + own.misses - misses
    return Built(hits, misses, sum(each.bytes for each in built), sum(each.seconds for each in built))


def fill(cache: ActivationCache, tokens: Tokens, encode: Encode, config: Config) -> Built:
    """Build the activations of `tokens` that the cache does not have."""
    check_room([cache], tokens, config)
    segment = config.cache.segment_mb << 20
    if ranks.world() > 1:  # each is to have something to do
        segment = min(segment, cache.size(tokens.lengths[cache.missing(tokens.keys())]) // ranks.world())
    return build(
        cache,
        tokens.keys(),
        tokens.lengths,
        encode,
        segment_bytes=segment,
        batch_tokens=config.cache.batch_tokens,
        progress=config.trainer.progress,
    )


def check_room(caches: list[ActivationCache], tokens: Tokens, config: Config) -> None:
    """Refuse a build that would make the cache larger than its owner wants it."""
    if config.cache.max_bytes is not None:
        need = sum(cache.size(tokens.lengths[cache.missing(tokens.keys())]) for cache in caches)
        check_quota(Path(config.paths.cache).expanduser(), need, config.cache.max_bytes)


def encoder(lower: Lower, tokens: Tokens, precision: Precision, device: torch.device) -> Encode:
    """Return the function that computes the activations of some rows of `tokens`."""

    def encode(indices: np.ndarray) -> Tensor:
        inputs = {name: column.to(device) for name, column in tokens.batch(indices).items()}
        with autocast(precision, device):
            return lower.to(device)(**inputs)  # type: ignore[no-any-return]  # moved only once something is missing

    return encode


def device_of(config: Config) -> torch.device:
    """Return the device of what is computed without a trainer."""
    gpu = torch.cuda.is_available() and config.trainer.accelerator != "cpu"
    return torch.device("cuda" if gpu else "cpu")


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Compute as the trainer will: an activation in another precision is another activation."""
    dtype = AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)
