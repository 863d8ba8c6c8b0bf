"""The arms of one model and cut, timed in one process, batch by batch in turn."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from er import memory
from er.benchmarks.arms import Arm, build_arms, step_of
from er.benchmarks.counted import multiplications
from er.benchmarks.workload import Workload
from er.cache import ActivationCache
from er.config import Config
from er.encoders import sharing
from er.errors import UserError
from er.progress import progress_bar
from er.timing import Stopwatch, synchronize
from er.training.batches import BucketedBatches
from er.training.data import Tokens
from er.training.methods import load, prepared
from er.training.recycle import encoder, fill, open_cache

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Seconds = dict[str, list[float]]

BUILD_ENTRIES = 1024
"""Entries in one timed build: enough batches for a median, few enough to repeat."""

BUILDS = 5
"""Builds that count, unless fewer batches are timed than that: then as many as these."""

PROFILED = 5
"""Batches whose time is split by phase: apart from those that are compared, since waiting for each phase costs time."""


def bench(config: Config, k: int, work: Workload, device: torch.device) -> dict[str, Any]:
    """Time training and inference of every arm on the same batches, and the build against a plain forward."""
    memory.reset(device)
    torch.manual_seed(config.seed)
    model = load(config, work).to(device)  # one for all arms and modes: the largest fit into memory no more than once
    sizes = {"training": config.optim.batch_size, "inference": config.bench.inference_batch_size}
    said: dict[str, Any] = {}
    for mode, size in sizes.items():
        with tempfile.TemporaryDirectory(prefix="er-bench-") as folder:
            alone = replace(config, paths=replace(config.paths, cache=folder))
            said[mode] = timed(alone, k, work, mode, size, device, model)
    return {**said, "build": builds(config, k, work, device, model), "memory": memory.peaks(device)}


def timed(
    config: Config, k: int, work: Workload, mode: str, size: int, device: torch.device, model: PreTrainedModel
) -> dict[str, Any]:
    """Time one mode of every arm: the seconds of each batch, and, of a few batches, of each phase."""
    batches = list(BucketedBatches(work.split.tokens.lengths, size, config.seed))[: config.bench.batches]
    if len(batches) <= config.bench.warmup:
        raise UserError(
            f"{work.name} fills {len(batches)} batches of {size}, of which bench.warmup={config.bench.warmup} do not "
            "count. Take more or smaller batches (bench.batches, optim.batch_size, bench.inference_batch_size)."
        )
    gc.collect()  # optimisers and gradients of an earlier mode
    arms = build_arms(config, k, work, batches, device, model)
    steps = {name: step_of(arm, mode, config.trainer.precision) for name, arm in arms.items()}
    before = {name: arm.before for name, arm in arms.items()}
    rounds = range(len(batches))
    seconds = alternate(steps, rounds, config.bench.warmup, device, before=before, progress=config.trainer.progress)
    few = rounds[config.bench.warmup :][:PROFILED]
    return {
        "batch_size": size,
        "seconds": seconds,
        "phases": {name: profiled(arm, steps[name], few) for name, arm in arms.items()},
        "multiplications": {name: multiplications(partial(step, few[0])) for name, step in steps.items()},
    }


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
    bar = progress_bar(iterable=list(rounds), desc=desc, unit="round", leave=False, disable=not progress)
    for turn, index in enumerate(bar):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            if before:
                before[name]()
            start = time.perf_counter()
            steps[name](index)
            synchronize(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: each[warmup:] for name, each in seconds.items()}


def builds(config: Config, k: int, work: Workload, device: torch.device, model: PreTrainedModel) -> dict[str, Any]:
    """Time building a fresh cache, published and synced, against computing the same batches and dropping them."""
    gc.collect()
    lower = prepared(sharing(model), config, k, work).lower
    assert lower is not None
    inputs = work.split.tokens.rows(np.arange(min(BUILD_ENTRIES, len(work.split.tokens))))
    tokens = Tokens.joined(inputs.parts())
    quiet = replace(config, trainer=replace(config.trainer, progress=False))
    cache = open_cache(quiet, lower)
    seen: list[np.ndarray] = []
    sizes: list[int] = []
    encode = encoder(lower.to(device), tokens, config.trainer.precision, device)

    def recorded(indices: np.ndarray) -> Tensor:
        seen.append(indices)
        return encode(indices)

    def build(turn: int) -> None:
        seen.clear()
        with tempfile.TemporaryDirectory(prefix="er-build-") as folder:
            fresh = ActivationCache(Path(folder), cache.space, cache.hidden)
            sizes.append(fill(fresh, tokens, recorded, quiet).bytes)

    def plain(turn: int) -> None:
        for indices in seen:
            encode(indices)

    build(0)
    repeats = min(BUILDS, config.bench.batches - config.bench.warmup)
    steps: dict[str, Callable[[int], object]] = {"build": build, "plain": plain}
    seconds = alternate(steps, range(repeats + 1), 1, device, "build", config.trainer.progress)
    return {"inputs": len(inputs), "bytes": sizes[0], "seconds": seconds}
