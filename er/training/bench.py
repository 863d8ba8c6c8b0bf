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
from er.errors import UserError
from er.timing import synchronize
from er.training.apart import lowered
from er.training.data import BucketedBatches, Split, Tokens
from er.training.heads import LOSSES
from er.training.methods import Parts, assemble
from er.training.recycle import encoder, fill, open_cache, recycle
from er.training.workload import Workload

Batch = dict[str, Any]
Seconds = dict[str, list[float]]

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
            hidden = lowered(self.parts.lower, {**batch, "inputs": inputs})
        output = self.parts.upper(**inputs) if hidden is None else self.parts.upper(hidden, **inputs)
        return self.parts.head(output)  # type: ignore[no-any-return]


def bench(config: Config, k: int, work: Workload, device: torch.device) -> dict[str, Any]:
    """Time training and inference of every arm on the same batches, and the build against a plain forward.

    A ratio is the median over batches of one arm's seconds over another's for that very batch, measured
    right after each other.
    """
    with tempfile.TemporaryDirectory(prefix="er-bench-") as folder:
        config = replace(config, paths=replace(config.paths, cache=folder))
        batches = list(BucketedBatches(work.split.tokens.lengths, config.optim.batch_size, config.seed))
        arms = build_arms(config, k, work, batches[: config.bench.batches], device)
        rounds, warmup = range(min(len(batches), config.bench.batches)), config.bench.warmup
        training = alternate({name: arm.training for name, arm in arms.items()}, rounds, warmup, device)
        inference = alternate({name: arm.inference for name, arm in arms.items()}, rounds, warmup, device)
        building = builds(config, k, work, device)
    return {"training": training, "inference": inference, "build": building}


def build_arms(
    config: Config, k: int, work: Workload, batches: list[list[int]], device: torch.device
) -> dict[str, Arm]:
    """Set up the arms that `bench.arms` names.

    `frozen`, `recycled` and `ram`, which is recycled without any reading, are one model that differs in where its
    activations come from. `finetune` and `adapters` are models of their own, whole ones.
    """
    rows = np.unique(np.concatenate(batches))
    batches = [np.searchsorted(rows, batch).tolist() for batch in batches]
    plain, cached = (Split(work.split.tokens.rows(rows), work.split.labels[rows]) for _ in range(2))
    parts = assemble(config, k, work)
    if parts.lower is None:
        raise ValueError(f"method={config.method.name} recycles nothing, so there is nothing to compare.")
    recycle(open_cache(config, parts.lower), parts.lower, {"train": cached}, config, device)
    ram = [cached.batch(batch) for batch in batches]
    sources: dict[str, Callable[[int], Batch]] = {
        "frozen": lambda i: plain.batch(batches[i]),
        "recycled": lambda i: cached.batch(batches[i]),
        "ram": lambda i: ram[i],
    }
    arms = {}
    for name in config.bench.arms:
        own = parts if name in sources else assemble(replace(config, method=whole(name, config.method)), 0, work)
        arms[name] = Arm(own, sources.get(name, sources["frozen"]), LOSSES[work.head], device)
    return arms


def whole(arm: str, method: Method) -> Method:
    """Return the method of an arm that recycles nothing."""
    online = Method(name=arm, cut=0, trains=Trains.all, recycles=False, head=method.head)
    if arm == "finetune":
        return online
    if arm == "adapters" and method.adapter is not None:
        return replace(online, trains=Trains.adapters, adapter=method.adapter)
    raise UserError(
        f"bench.arms={arm}: choose from finetune, frozen, recycled, ram, and, with a method that has them, adapters."
    )


def alternate(
    steps: dict[str, Callable[[int], object]], rounds: Iterable[int], warmup: int, device: torch.device
) -> Seconds:
    """Run every step once a round, in an order that rotates, and return the seconds after the warm-up."""
    seconds: Seconds = {name: [] for name in steps}
    names = list(steps)
    for turn, index in enumerate(tqdm(list(rounds), desc="bench", unit="round", leave=False)):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            steps[name](index)
            synchronize(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: each[warmup:] for name, each in seconds.items()}


def builds(config: Config, k: int, work: Workload, device: torch.device, repeats: int = 5) -> Seconds:
    """Time building a fresh cache, published and synced, against computing the same batches and dropping them."""
    parts = assemble(config, k, work)
    assert parts.lower is not None
    lower = parts.lower.to(device)
    tokens = Tokens.joined(work.split.tokens.rows(np.arange(min(BUILD_ENTRIES, len(work.split.tokens)))).parts())
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
    return alternate({"build": build, "plain": plain}, range(repeats + 1), 1, device)


def ratio(seconds: Seconds, of: str, over: str) -> float:
    """Return the median, over rounds, of one arm's seconds over another's."""
    return median(a / b for a, b in zip(seconds[of], seconds[over], strict=True))
