"""The arms of one model and cut: the same step done in different ways, on the same batches."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from er.benchmarks.cold import Cold
from er.benchmarks.workload import Workload
from er.choices import Precision, Trains
from er.config import Config, Method
from er.encoders import sharing
from er.errors import UserError
from er.timing import Stopwatch
from er.training.apart import lowered
from er.training.data import Split
from er.training.heads import LOSSES
from er.training.methods import Parts, load, prepared
from er.training.recycle import autocast, open_cache, recycle

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Batch = dict[str, Any]

Source = tuple[Callable[[int], Batch], Callable[[], None]]
"""Where batches come from, and what has to be done before one is taken."""

RECYCLING = ("frozen", "recycled", "cold", "ram")
"""The arms that are one model, cut, and differ in where its activations come from."""


def _nothing() -> None:
    """Do what most arms need before a step."""


@dataclass
class Arm:
    """One way to do the same step: its model, and where its batches come from."""

    parts: Parts
    batch: Callable[[int], Batch]
    loss: Callable[[Tensor, Tensor], Tensor]
    device: torch.device
    optimizer: torch.optim.Optimizer
    before: Callable[[], None] = _nothing
    """What has to be done before a step, and is no part of it."""
    clock: Stopwatch | None = None
    """Where there is one, it is told where the time goes: at every phase the device is waited for."""

    def training(self, index: int) -> None:
        """Assemble the batch, forward, backward, update."""
        self.parts.upper.train()
        batch = self._placed(index)
        with self._phase("forward"):
            loss = self.loss(self._logits(batch), batch["labels"])
        with self._phase("backward"):
            loss.backward()
        with self._phase("optimiser"):
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)  # no arm holds memory while another is timed

    @torch.no_grad()
    def inference(self, index: int) -> None:
        """Assemble the batch, forward."""
        self.parts.upper.eval()
        batch = self._placed(index)
        with self._phase("forward"):
            self._logits(batch)

    def _phase(self, name: str) -> AbstractContextManager[None]:
        return self.clock(name) if self.clock else nullcontext()

    def _placed(self, index: int) -> Batch:
        with self._phase("read"):
            batch = self.batch(index)
        with self._phase("copy"):
            inputs = {name: column.to(self.device) for name, column in batch["inputs"].items()}
            moved = {name: batch[name].to(self.device) for name in batch.keys() & {"hidden", "labels"}}
        return batch | moved | {"inputs": inputs}

    def _logits(self, batch: Batch) -> Tensor:
        inputs, hidden = batch["inputs"], batch.get("hidden")
        if hidden is None and self.parts.lower is not None:
            hidden = lowered(self.parts.lower, batch)
        output = self.parts.upper(**inputs) if hidden is None else self.parts.upper(hidden, **inputs)
        return self.parts.head(output)  # type: ignore[no-any-return]


def build_arms(
    config: Config,
    k: int,
    work: Workload,
    batches: list[list[int]],
    device: torch.device,
    model: PreTrainedModel | None = None,
) -> dict[str, Arm]:
    """Set up the arms that `bench.arms` names, all over the weights of one model.

    `frozen`, `recycled`, `cold` (recycled, each batch from a disk that was not read before) and `ram` (recycled without
    any reading) are one model that differs in where its activations come from. `finetune` and `adapters` are models of
    their own, whole ones.
    """
    methods = {name: whole(name, config.method) for name in config.bench.arms if name not in RECYCLING}
    model = load(config, work).to(device) if model is None else model
    rows = np.unique(np.concatenate(batches))
    batches = [np.searchsorted(rows, batch).tolist() for batch in batches]
    plain, cached = (Split(work.split.tokens.rows(rows), work.split.labels[rows]) for _ in range(2))
    parts = placed(prepared(sharing(model), config, k, work), device)
    if parts.lower is None:
        raise ValueError(f"method={config.method.name} recycles nothing, so there is nothing to compare.")
    recycle(open_cache(config, parts.lower), parts.lower, {"train": cached}, config, device)
    sources = _sources(config.bench.arms, plain, cached, batches)
    arms, optimizer = {}, optimizer_of(parts)
    for name in config.bench.arms:
        own, its = parts, optimizer
        if name in methods:
            own = placed(prepared(sharing(model), replace(config, method=methods[name]), 0, work), device)
            its = optimizer_of(own)
        batch, before = sources[name]
        arms[name] = Arm(own, batch, LOSSES[work.head], device, its, before)
    return arms


def _sources(arms: list[str], plain: Split, cached: Split, batches: list[list[int]]) -> dict[str, Source]:
    """Say where the batches of each arm come from."""
    online: Source = (lambda i: plain.batch(batches[i])), _nothing
    sources = dict.fromkeys(arms, online)
    if "recycled" in arms:
        sources["recycled"] = (lambda i: cached.batch(batches[i])), _nothing
    if "ram" in arms:
        ram = [cached.batch(batch) for batch in batches]
        sources["ram"] = ram.__getitem__, _nothing
    if "cold" in arms:
        cold = Cold(cached)
        sources["cold"] = (lambda i: cold.batch(batches[i])), cold.forget
    return sources


def step_of(arm: Arm, mode: str, precision: Precision) -> Callable[[int], object]:
    """Return an arm's step, `training` or `inference`, in the precision in which runs do it."""

    def step(index: int) -> None:
        with autocast(precision, arm.device):
            getattr(arm, mode)(index)

    return step


def placed(parts: Parts, device: torch.device) -> Parts:
    """Move what is not there yet to the device."""
    for module in (parts.lower, parts.upper, parts.head):
        if module is not None:
            module.to(device)
    return parts


def optimizer_of(parts: Parts) -> torch.optim.Optimizer:
    """Return AdamW over what trains, in steps of length zero.

    They take as long as any others, and since nothing moves all arms can share the memory of their weights.
    """
    modules = [module for module in (parts.upper, parts.head, parts.lower) if module is not None]
    weights = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
    return torch.optim.AdamW(weights, lr=0.0)


def whole(arm: str, method: Method) -> Method:
    """Return the method of an arm that recycles nothing."""
    online = Method(name=arm, cut=0, trains=Trains.all, recycles=False, head=method.head)
    if arm == "finetune":
        return online
    if arm == "adapters" and method.adapter is not None:
        return replace(online, trains=Trains.adapters, adapter=method.adapter)
    raise UserError(
        f"bench.arms={arm}: choose from finetune, frozen, recycled, cold, ram and, where the method has some, adapters."
    )
