"""Runs that have a space, a task's data and a batch size in common: done in turns, they read each batch once."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from torch import Tensor

from er import checks
from er.config import Config
from er.results import Result
from er.studies.study import Shelf
from er.training.ahead import AHEAD
from er.training.data import Split
from er.training.run import run
from er.training.turns import in_turns

if TYPE_CHECKING:
    from er.cache import ActivationCache, Locations

log = logging.getLogger(__name__)

KEPT = AHEAD + 2
"""Batches that are remembered: what the run that is furthest ahead has read, the others ask for next."""


class Reader:
    """Reads batches of a space, and gives those that it has just read to all who ask for the same."""

    def __init__(self, cache: ActivationCache) -> None:
        self.cache = cache
        self.reads = 0
        self._last: dict[bytes, Tensor] = {}
        self._lock = Lock()

    def __call__(self, where: Locations) -> Tensor:
        """Return the activations of these entries, which nobody may write to."""
        key = where.tobytes()
        with self._lock:
            if key not in self._last:
                while len(self._last) >= KEPT:
                    del self._last[next(iter(self._last))]
                self._last[key] = self.cache.read(where)
                self.reads += 1
            return self._last[key]


class CommonShelf(Shelf):
    """What runs that are done together load once; and each space has one reader."""

    def __init__(self, runs: int) -> None:
        super().__init__()
        self.runs = runs
        self.readers: dict[str, Reader] = {}

    def tokens(self, config: Config) -> dict[str, Split]:
        """Return the tokenised splits of a run, which then says for itself where their activations lie."""
        return {name: replace(split) for name, split in super().tokens(config).items()}

    def share(self, splits: dict[str, Split]) -> None:
        """Have what is cached of a run's splits read by the one reader of their space.

        They are located by its cache, as each that is opened numbers the segments for itself.
        """
        for split in splits.values():
            if split.cache is None:
                continue
            reader = self.readers.setdefault(split.cache.space.digest, Reader(split.cache))
            if split.cache is not reader.cache:
                reader.cache.refresh()
                split.cache, split.where = reader.cache, reader.cache.locate(split.tokens.keys())
            split.read = reader


def alike(config: Config) -> Hashable:
    """Return what runs must agree in to be done together: then they may read the same batches.

    They do if the order of their batches is the same, too: with one seed, or one optim.order for all. A run that reads
    nothing from the cache, or is itself done by several processes, has nobody to share with.
    """
    if not checks.recycled(config) or config.trainer.devices > 1:
        return repr(config)
    task = replace(config.task, name="", label="", label_names=None, hub_label=None)
    space = config.model, config.method.cut, config.method.source, config.cache.dtype
    return repr((space, task, config.optim.batch_size, config.trainer, config.paths))


def run_together(configs: list[Config], overrides: list[list[str]] | None = None) -> list[Result | Exception]:
    """Do several runs, no two of them the same, in turns; one that fails gives its error, and stops no other.

    Each has the result that it would have alone. `overrides` are those that compose each of them.
    """
    log.info("%d runs together", len(configs))
    common = CommonShelf(len(configs))
    said = overrides or [None] * len(configs)  # type: ignore[list-item]
    return in_turns([partial(_one, *each, common) for each in zip(configs, said, range(len(configs)), strict=True)])


def _one(config: Config, overrides: list[str] | None, number: int, common: CommonShelf) -> Result | Exception:
    if overrides is not None and HydraConfig.initialized():
        HydraConfig.instance().cfg = _said(overrides)
    if number > 0:  # one bar is enough: they go on at the same pace
        config = replace(config, trainer=replace(config.trainer, progress=False))
    try:
        return run(config, common)
    except Exception as error:
        return error


def _said(overrides: list[str]) -> Any:
    """Return what Hydra would say of a job with these overrides."""
    cfg: Any = deepcopy(HydraConfig.instance().cfg)
    OmegaConf.set_readonly(cfg.hydra, False)
    cfg.hydra.overrides.task = overrides
    OmegaConf.set_readonly(cfg.hydra, True)
    return cfg
