"""The arms of one model and cut, timed in one process, batch by batch in turn."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from er.config import Config
from er.errors import UserError
from er.timing import Stopwatch, synchronize
from er.training.arms import Arm, build_arms
from er.training.data import BucketedBatches, Tokens
from er.training.methods import assemble
from er.training.recycle import encoder, fill, open_cache
from er.training.workload import Workload

Seconds = dict[str, list[float]]

BUILD_ENTRIES = 1024
"""Entries in one timed build: enough batches for a median, few enough to repeat."""

PROFILED = 5
"""Batches whose time is split by phase: apart from those that are compared, since waiting for each phase costs time."""


def bench(config: Config, k: int, work: Workload, device: torch.device) -> dict[str, Any]:
    """Time training and inference of every arm on the same batches, and the build against a plain forward."""
    with tempfile.TemporaryDirectory(prefix="er-bench-") as folder:
        config = replace(config, paths=replace(config.paths, cache=folder))
        sizes = {"training": config.optim.batch_size, "inference": config.bench.inference_batch_size}
        modes = {mode: timed(config, k, work, mode, size, device) for mode, size in sizes.items()}
        return {**modes, "build": builds(config, k, work, device)}


def timed(config: Config, k: int, work: Workload, mode: str, size: int, device: torch.device) -> dict[str, Any]:
    """Time one mode of every arm: the seconds of each batch, and, of a few batches, of each phase."""
    batches = list(BucketedBatches(work.split.tokens.lengths, size, config.seed))[: config.bench.batches]
    if len(batches) <= config.bench.warmup:
        raise UserError(
            f"{work.name} fills {len(batches)} batches of {size}, of which bench.warmup={config.bench.warmup} do not "
            "count. Take more or smaller batches (bench.batches, optim.batch_size, bench.inference_batch_size)."
        )
    arms = build_arms(config, k, work, batches, device)
    steps = {name: getattr(arm, mode) for name, arm in arms.items()}
    before = {name: arm.before for name, arm in arms.items()}
    seconds = alternate(steps, range(len(batches)), config.bench.warmup, device, before=before)
    phases = {name: profiled(arm, steps[name], range(len(batches))[:PROFILED]) for name, arm in arms.items()}
    return {"batch_size": size, "seconds": seconds, "phases": phases}


def profiled(arm: Arm, step: Callable[[int], object], rounds: Iterable[int]) -> dict[str, float]:
    """Return the seconds that these batches spend in each phase of a step."""
    arm.clock = Stopwatch(arm.device)
    for index in rounds:
        arm.before()
        step(index)
    return dict(arm.clock.seconds)


def alternate(
    steps: dict[str, Callable[[int], object]],
    rounds: Iterable[int],
    warmup: int,
    device: torch.device,
    desc: str = "bench",
    progress: bool = True,
    before: Mapping[str, Callable[[], None]] | None = None,
) -> Seconds:
    """Run every step once a round, in an order that rotates, and return the seconds after the warm-up.

    What must happen `before` a step is not counted.
    """
    seconds: Seconds = {name: [] for name in steps}
    names = list(steps)
    for turn, index in enumerate(tqdm(list(rounds), desc=desc, unit="round", leave=False, disable=not progress)):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            if before:
                before[name]()
            start = time.perf_counter()
            steps[name](index)
            synchronize(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: each[warmup:] for name, each in seconds.items()}


def builds(config: Config, k: int, work: Workload, device: torch.device, repeats: int = 5) -> dict[str, Any]:
    """Time building a fresh cache, published and synced, against computing the same batches and dropping them."""
    parts = assemble(config, k, work)
    assert parts.lower is not None
    lower = parts.lower.to(device)
    inputs = work.split.tokens.rows(np.arange(min(BUILD_ENTRIES, len(work.split.tokens))))
    tokens = Tokens.joined(inputs.parts())
    quiet = replace(config, trainer=replace(config.trainer, progress=False))
    seen: list[np.ndarray] = []
    sizes: list[int] = []
    encode = encoder(lower, tokens, config.trainer.precision, device)

    def recorded(indices: np.ndarray) -> Tensor:
        seen.append(indices)
        return encode(indices)

    def build(turn: int) -> None:
        seen.clear()
        with tempfile.TemporaryDirectory(prefix="er-build-") as folder:
            fresh = replace(quiet, paths=replace(config.paths, cache=folder))
            sizes.append(fill(open_cache(fresh, lower), tokens, recorded, fresh).bytes)

    def plain(turn: int) -> None:
        for indices in seen:
            encode(indices)

    build(0)
    seconds = alternate({"build": build, "plain": plain}, range(repeats + 1), 1, device)
    return {"inputs": len(inputs), "bytes": sizes[0], "seconds": seconds}
