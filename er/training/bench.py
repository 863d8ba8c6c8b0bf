"""The arms of one model and cut, timed in one process, batch by batch in turn."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from er.config import Config, Method, Trains
from er.tasks import Task
from er.timing import synchronize
from er.training.data import BucketedBatches, Split
from er.training.heads import LOSSES
from er.training.methods import Parts, assemble
from er.training.recycle import encoder, fill, open_cache, recycle

Batch = dict[str, Any]
Seconds = dict[str, list[float]]

FINETUNE = Method(name="finetune", cut=0, trains=Trains.all, recycles=False)
BUILD_ENTRIES = 1024
"""Entries in one timed build: enough batches for a median, few enough to repeat."""


@dataclass
class Arm:
    """One way to do the same step: its model, and where its batches come from."""

    parts: Parts
    batch: Callable[[int], Batch]
    loss: Callable[[Tensor, Tensor], Tensor]
    device: torch.device

    def __post_init__(self) -> None:
        modules = [self.parts.upper, self.parts.head] + ([self.parts.lower] if self.parts.lower else [])
        for module in modules:
            module.to(self.device)
        weights = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(weights)

    def training(self, index: int) -> None:
        """Assemble the batch, forward, backward, update."""
        self.parts.upper.train()
        batch = self.batch(index)
        self.loss(self._logits(batch), batch["labels"].to(self.device)).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def inference(self, index: int) -> None:
        """Assemble the batch, forward."""
        self.parts.upper.eval()
        self._logits(self.batch(index))

    def _logits(self, batch: Batch) -> Tensor:
        inputs = {name: column.to(self.device) for name, column in batch["inputs"].items()}
        hidden = batch["hidden"].to(self.device) if "hidden" in batch else None
        if hidden is None and self.parts.lower is not None:
            hidden = self.parts.lower(**inputs)
        output = self.parts.upper(**inputs) if hidden is None else self.parts.upper(hidden, **inputs)
        return self.parts.head(output)  # type: ignore[no-any-return]


def bench(config: Config, task: Task, k: int, split: Split, device: torch.device) -> dict[str, Any]:
    """Time training and inference of every arm on the same batches, and the build against a plain forward.

    A ratio is the median over batches of one arm's seconds over another's for that very batch, measured
    right after each other.
    """
    with tempfile.TemporaryDirectory(prefix="er-bench-") as folder:
        config = replace(config, paths=replace(config.paths, cache=folder))
        batches = list(BucketedBatches(split.tokens.lengths, config.optim.batch_size, config.seed))
        batches = batches[: config.bench.batches]
        arms = build_arms(config, task, k, split, batches, device)
        rounds = range(len(batches))
        training = alternate({name: arm.training for name, arm in arms.items()}, rounds, config.bench.warmup)
        inference = alternate({name: arm.inference for name, arm in arms.items()}, rounds, config.bench.warmup)
        building = builds(config, task, k, split, device)
    return {"training": training, "inference": inference, "build": building}


def build_arms(
    config: Config, task: Task, k: int, split: Split, batches: list[list[int]], device: torch.device
) -> dict[str, Arm]:
    """Set up the arms: `finetune`, `frozen`, `recycled`, and `ram`, which is recycled without any reading."""
    rows = np.unique(np.concatenate(batches))
    frozen, recycled = assemble(config, k, task), assemble(config, k, task)
    if recycled.lower is None or frozen.lower is None:
        raise ValueError(f"method={config.method.name} recycles nothing, so there is nothing to compare.")
    cache = open_cache(config, recycled.lower)
    used = Split(split.tokens.rows(rows), split.labels[rows])
    recycle(cache, recycled.lower, {"train": used}, config, device)
    batches = [np.searchsorted(rows, batch).tolist() for batch in batches]
    split = replace(used, cache=None, where=None)
    cached = used
    ram = [cached.batch(batch) for batch in batches]
    finetune = assemble(replace(config, method=replace(FINETUNE, head=config.method.head)), 0, task)
    recycled.lower = None

    def arm(parts: Parts, batch: Callable[[int], Batch]) -> Arm:
        return Arm(parts, batch, LOSSES[task.head], device)

    return {
        "finetune": arm(finetune, lambda i: split.batch(batches[i])),
        "frozen": arm(frozen, lambda i: split.batch(batches[i])),
        "recycled": arm(recycled, lambda i: cached.batch(batches[i])),
        "ram": arm(recycled, lambda i: ram[i]),
    }


def alternate(steps: dict[str, Callable[[int], object]], rounds: Iterable[int], warmup: int) -> Seconds:
    """Run every step once a round, in an order that rotates, and return the seconds after the warm-up."""
    seconds: Seconds = {name: [] for name in steps}
    names = list(steps)
    for turn, index in enumerate(tqdm(list(rounds), desc="bench", unit="round", leave=False)):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            steps[name](index)
            if torch.cuda.is_available():
                synchronize(torch.device("cuda"))
            seconds[name].append(time.perf_counter() - start)
    return {name: each[warmup:] for name, each in seconds.items()}


def builds(config: Config, task: Task, k: int, split: Split, device: torch.device, repeats: int = 5) -> Seconds:
    """Time building a fresh cache, published and synced, against computing the same batches and dropping them."""
    parts = assemble(config, k, task)
    assert parts.lower is not None
    lower = parts.lower.to(device)
    tokens = split.tokens.rows(np.arange(min(BUILD_ENTRIES, len(split.tokens))))
    quiet = replace(config, trainer=replace(config.trainer, progress=False))
    seen: list[np.ndarray] = []
    encode = encoder(lower, tokens, config.trainer.precision, device)

    def recorded(indices: np.ndarray) -> Tensor:
        seen.append(indices)
        return encode(indices)

    def build(turn: int) -> None:
        seen.clear()
        with tempfile.TemporaryDirectory(prefix="er-build-") as folder:
            fresh = replace(quiet, paths=replace(config.paths, cache=folder))
            fill(open_cache(fresh, lower), tokens, recorded, fresh)

    def plain(turn: int) -> None:
        for indices in seen:
            encode(indices)

    build(0)
    return alternate({"build": build, "plain": plain}, range(repeats + 1), warmup=1)


def ratio(seconds: Seconds, of: str, over: str) -> float:
    """Return the median, over rounds, of one arm's seconds over another's."""
    return median(a / b for a, b in zip(seconds[of], seconds[over], strict=True))
