"""Several cuts of one model cached in one pass: the deepest is built, and the activations on its way are kept aside."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from er.cache import ActivationCache, Encode
from er.cache.claims import Claims
from er.config import Config
from er.encoders import Between, Lower
from er.timing import synchronize
from er.training.data import Tokens
from er.training.recycle import autocast, check_room, fill, open_cache

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


@dataclass
class Aside:
    """What comes along for a shallower cut while a deeper one is built, published by the segment."""

    cache: ActivationCache
    tokens: Tokens
    segment_bytes: int
    rows: list[np.ndarray] = field(default_factory=list)
    parts: list[Tensor] = field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.claims = Claims(self.cache)
        self.keys = self.tokens.keys()
        self.wanted = np.zeros(len(self.keys), dtype=bool)
        self.wanted[self.cache.missing(self.keys)] = True

    def keep(self, indices: np.ndarray, padded: Tensor, seconds: float) -> None:
        """Take the activations of those inputs that this cut misses; `seconds` is what all of them cost."""
        new = self.wanted[indices]
        if new.any():
            new[new] = self.claims.take(self.keys[indices[new]])
        if not new.any():
            return
        lengths = self.tokens.lengths[indices]
        real = np.arange(padded.shape[1])[None] < (lengths * new)[:, None]
        self.parts.append(padded[torch.from_numpy(real).to(padded.device)].cpu())
        self.rows.append(indices[new])
        self.seconds += seconds * lengths[new].sum() / lengths.sum()
        self.wanted[indices] = False
        if self.cache.size(self.tokens.lengths[np.concatenate(self.rows)]) >= self.segment_bytes:
            self.publish()

    def publish(self) -> None:
        """Publish what was kept."""
        if self.rows:
            rows = np.concatenate(self.rows)
            self.cache.publish(self.keys[rows], self.tokens.lengths[rows], torch.cat(self.parts), self.seconds)
            self.claims.release()
            self.rows, self.parts, self.seconds = [], [], 0.0


def fill_cuts(
    model: PreTrainedModel, cuts: list[int], tokens: Tokens, config: Config, device: torch.device
) -> list[ActivationCache]:
    """Make sure that every input has an activation at each of these cuts, given in ascending order.

    The layers run once, up to the deepest cut. In the same batches, the activations are those of separate builds to
    the bit.
    """
    lowers = [Lower(model, k) for k in cuts]
    caches = [open_cache(config, lower) for lower in lowers]
    check_room(caches, tokens, config)
    betweens = [Between(model, j, k).to(device) for j, k in pairwise(cuts)]
    for count in range(len(cuts), 0, -1):  # what the deepest had already is left to the next deepest, and so on
        _fill_deepest(lowers[0].to(device), betweens[: count - 1], caches[:count], tokens, config, device)
    return caches


def _fill_deepest(
    lower: Lower,
    betweens: list[Between],
    caches: list[ActivationCache],
    tokens: Tokens,
    config: Config,
    device: torch.device,
) -> None:
    *others, deepest = caches
    if not len(deepest.missing(tokens.keys())):
        return
    with ExitStack() as held:
        asides = [Aside(cache, tokens, config.cache.segment_mb << 20) for cache in others]
        for aside in asides:  # held while others are waited for, but only at deeper cuts: so no two wait for each other
            held.enter_context(aside.claims)
        fill(deepest, tokens, _encoder(lower, betweens, asides, tokens, config, device), config)
        for aside in asides:
            aside.publish()


def _encoder(
    lower: Lower, betweens: list[Between], asides: list[Aside], tokens: Tokens, config: Config, device: torch.device
) -> Encode:
    @torch.no_grad()
    def encode(indices: np.ndarray) -> Tensor:
        inputs = {name: column.to(device) for name, column in tokens.batch(indices).items()}
        started = time.perf_counter()
        with autocast(config.trainer.precision, device):
            hidden: Tensor = lower(**inputs)
            for aside, between in zip(asides, betweens, strict=True):
                synchronize(device)  # what lies below this cut is what it would have cost alone
                aside.keep(indices, hidden, time.perf_counter() - started)
                hidden = between(hidden, **inputs)
        return hidden

    return encode
