"""Inputs with known activations, the same in every process, and an encoder that gives them back."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from er.cache.build import build
from er.cache.key import Ints, Keys, Space, entry_keys
from er.cache.segment import verify
from er.cache.store import ActivationCache

HIDDEN = 12
SPACE = Space(weights="w", cut_layer=3, compute_dtype="float32", storage_dtype="float32")


@dataclass
class Corpus:
    """Inputs, their keys, and what the lower layers say of each."""

    size: int = 60
    seed: int = 0
    keys: Keys = field(init=False)
    lengths: Ints = field(init=False)
    activations: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.lengths = rng.integers(1, 21, self.size)
        self.keys = entry_keys([[i, *rng.integers(0, 30_000, length - 1)] for i, length in enumerate(self.lengths)])
        self.activations = [torch.from_numpy(rng.normal(size=(n, HIDDEN)).astype(np.float32)) for n in self.lengths]

    def packed(self, chosen: Ints | slice = slice(None)) -> Tensor:
        return torch.cat([self.activations[i] for i in np.arange(self.size)[chosen]])

    def encode(self, chosen: Ints) -> Tensor:
        """As a model would: padded to the longest, with anything at all where there is padding."""
        rows = [self.activations[i] for i in chosen]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=float("nan"))


def opened(root: Path, storage: str = "float32") -> ActivationCache:
    """Open the space anew, as another process does."""
    return ActivationCache(root, replace(SPACE, storage_dtype=storage), HIDDEN)


def content(cache: ActivationCache, texts: Corpus) -> list[Tensor]:
    """Every entry as the cache gives it."""
    packed, lengths = cache.packed(cache.locate(texts.keys))
    return list(torch.split(packed, lengths.tolist()))


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) and all(map(torch.equal, left, right))


def segments(cache: ActivationCache) -> list[Path]:
    return sorted(cache.directory.glob("*.safetensors"))


def sound(cache: ActivationCache) -> bool:
    return not any(verify(path) for path in segments(cache))


def build_slowly(root: Path, size: int, seconds: float, calls: Path, wanted: slice = slice(None)) -> None:
    """Run a builder in a process of its own: small segments, and a line for every batch that it encodes."""
    torch.set_num_threads(1)
    texts = Corpus(size)

    inputs = np.arange(size)[wanted]

    def encode(chosen: Ints) -> Tensor:
        with open(calls, "a") as file:
            file.write(f"{os.getpid()} {' '.join(map(str, inputs[chosen]))}\n")
        time.sleep(seconds)
        return texts.encode(inputs[chosen])

    keys, lengths = texts.keys[inputs], texts.lengths[inputs]
    build(opened(root), keys, lengths, encode, segment_bytes=1 << 12, batch_tokens=50, progress=False)
