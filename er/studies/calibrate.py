"""What a batch takes on this machine, by arm and by shape: a few batches of different lengths, timed."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from er import encoders
from er.benchmarks.arms import RECYCLING, Arm, build_arms, optimizer_of, placed, step_of, whole
from er.benchmarks.bench import alternate
from er.benchmarks.workload import Workload
from er.cache import ActivationCache
from er.cache.build import longest_first, windows
from er.cache.codec import token_bytes
from er.config import Config, Model
from er.encoders import Lower
from er.studies.planning import Cost, Shapes, chosen, fitted
from er.timing import synchronize
from er.training import cross_model
from er.training.batches import BucketedBatches, batches_of
from er.training.data import Split, Tokens
from er.training.heads import LOSSES
from er.training.methods import assemble
from er.training.recycle import encoder, fill

TIMED = 5
"""Batches of each kind that are timed: the cost has three parts, and is to be fitted rather than solved."""

ROUNDS = 2

MODES = ("training", "inference")


def about(config: Config, k: int, arm: str, reads: str) -> dict[str, Any]:
    """Say all that has a say in how long a batch takes in an arm, besides its shape and the machine."""
    method = config.method
    if method.recycles and arm not in RECYCLING:
        method = whole(arm, method)
    said = {
        "model": architecture(config.model),
        "precision": config.trainer.precision,
        "batch_size": config.optim.batch_size,
        "head": [method.head, reads],
        "trains": method.trains,
        "adapter": asdict(method.adapter) if method.adapter else None,
    }
    if method.source is not None:
        source = method.source
        said["source"] = [architecture(source.model), cross_model.source_layer(source), source.width]
    if method.recycles:
        said |= {"arm": arm, "cut": k, "encode": config.task.encode}
    return said | ({"storage": config.cache.dtype} if arm == "recycled" else {})


def about_build(config: Config, k: int) -> dict[str, Any]:
    """Say all that has a say in how long building a batch takes."""
    source = config.method.source
    return {
        "model": architecture(config.model if source is None else source.model),
        "precision": config.trainer.precision,
        "build": k if source is None else cross_model.source_layer(source),
        "storage": config.cache.dtype,
    }


def architecture(model: Model) -> dict[str, Any]:
    """Say what a model computes, whatever its weights: models that agree here take the same time."""
    config = encoders.load_config(model)
    return {"attention": model.attention, "layers": encoders.depth(config), **encoders.numerics(config)}


def calibrate(
    config: Config, k: int, work: Workload, arms: tuple[str, ...], device: torch.device
) -> dict[str, dict[str, Cost]]:
    """Time training and inference of some arms, in turn, on batches from the shortest to the longest."""
    batches = list(BucketedBatches(work.split.tokens.lengths, config.optim.batch_size, config.seed))
    every = shapes_of(batches, work.split.tokens.lengths)
    picked = chosen(every, TIMED)
    with tempfile.TemporaryDirectory(prefix="er-plan-", dir=room(config)) as folder:
        built = _arms(_quiet(config, folder), k, work, [batches[index] for index in picked], arms, device)
        rounds = [len(picked) - 1, *list(range(len(picked))) * ROUNDS]  # the largest first, which warms up
        costs: dict[str, dict[str, Cost]] = {name: {} for name in built}
        for mode in MODES:
            steps = {name: step_of(arm, mode, config.trainer.precision) for name, arm in built.items()}
            desc, progress = f"timing {config.model.name}", config.trainer.progress
            seconds = alternate(steps, rounds, 1, device, desc, progress)
            for name, each in costs.items():
                each[mode] = fitted(every[picked * ROUNDS], seconds[name])
    return costs


def _arms(
    config: Config, k: int, work: Workload, batches: list[list[int]], arms: tuple[str, ...], device: torch.device
) -> dict[str, Arm]:
    """Set up those of a method that recycles, or the one that a method is which does not."""
    torch.manual_seed(config.seed)
    if config.method.recycles:
        return build_arms(replace(config, bench=replace(config.bench, arms=list(arms))), k, work, batches, device)
    split = work.split
    (name,) = arms
    parts = placed(assemble(config, 0, work), device)
    return {name: Arm(parts, lambda i: split.batch(batches[i]), LOSSES[work.head], device, optimizer_of(parts))}


def build_cost(config: Config, cache: ActivationCache, lower: Lower, tokens: Tokens, device: torch.device) -> Cost:
    """Time the build of a few batches, each published and synced, where the cache lies but not in it."""
    shapes, batches = build_batches(config, cache, tokens)
    picked = chosen(shapes, TIMED)
    order = [picked[-1], *picked * ROUNDS]
    seconds = [_built(config, cache, lower, tokens.rows(batches[index]), device) for index in order]
    return fitted(shapes[order[1:]], seconds[1:])


def _built(config: Config, cache: ActivationCache, lower: Lower, tokens: Tokens, device: torch.device) -> float:
    with tempfile.TemporaryDirectory(prefix="er-plan-", dir=room(config)) as folder:
        fresh = ActivationCache(Path(folder), cache.space, cache.hidden)
        start = time.perf_counter()
        fill(fresh, tokens, encoder(lower, tokens, config.trainer.precision, device), _quiet(config, folder))
        synchronize(device)
        return time.perf_counter() - start


def build_batches(config: Config, cache: ActivationCache, tokens: Tokens) -> tuple[Shapes, list[np.ndarray]]:
    """Return the batches in which a build would compute these inputs."""
    size = max(1, (config.cache.segment_mb << 20) // token_bytes(cache.space.storage_dtype, cache.hidden))
    lengths = tokens.lengths
    parts = windows(np.arange(len(lengths)), lengths, size, config.cache.batch_tokens)
    batches = [rows[batch] for rows in parts for batch in longest_first(lengths[rows], config.cache.batch_tokens)]
    return shapes_of(batches, lengths), batches


def evaluation_shapes(split: Split, size: int) -> Shapes:
    """Return the shapes of the batches in which a split is evaluated."""
    lengths = split.tokens.lengths
    return shapes_of(batches_of(np.argsort(lengths, kind="stable"), size), lengths)


def training_shapes(split: Split, size: int, seed: int) -> Shapes:
    """Return the shapes of the batches of an epoch."""
    return shapes_of(list(BucketedBatches(split.tokens.lengths, size, seed)), split.tokens.lengths)


def shapes_of(batches: list[list[int]] | list[np.ndarray], lengths: np.ndarray) -> Shapes:
    """Return how many inputs each batch has, and how long its longest is."""
    return np.array([(len(batch), lengths[batch].max()) for batch in batches], dtype=np.int64).reshape(-1, 2)


def room(config: Config) -> str | None:
    """Return a folder on the disk where the cache is or will be, if it may be written to."""
    cache = Path(config.paths.cache).expanduser().absolute()
    return next((str(path) for path in cache.parents if path.is_dir() and os.access(path, os.W_OK)), None)


def _quiet(config: Config, cache: str) -> Config:
    """Return the configuration with a cache of its own, of any size, and without a bar."""
    return replace(
        config,
        paths=replace(config.paths, cache=cache),
        cache=replace(config.cache, max_bytes=None),
        trainer=replace(config.trainer, progress=False),
    )
