"""What makes a run this run, and the one place where its files live."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from er.checks import recycled, separate
from er.choices import Monitor
from er.config import Config


def identity(config: Config, k: int, sources: dict[str, str]) -> dict[str, Any]:
    """List what makes a run this run: two runs that agree here are one.

    Paths, device, logger and launcher are absent on purpose. `sources` holds the digests of the model's
    and the task's files, so that an edited file is another run. What `er` has not always known of is named only where
    it is used: how texts are encoded where they are apart, by what the best epoch is chosen where not by the loss, the
    order of the batches where it is not the seed's.
    """
    model, task, optim = config.model, config.task, asdict(config.optim)
    optim.pop("name")
    if config.optim.monitor is Monitor.loss:
        optim.pop("monitor")
    if config.optim.order is None:
        optim.pop("order")
    named = {
        "model": {"name": model.name, "source": sources["model"], "random": model.random},
        "task": {
            "name": task.name,
            "source": sources["task"],
            "text": task.text,
            "label": task.label,
            "unseen_label": task.unseen_label,
            "max_length": task.max_length,
            "stride": task.stride,
            "max_windows": task.max_windows,
            "max_answer": task.max_answer,
            "limit": task.limit,
            **({"encode": task.encode, "offset": task.offset} if separate(config) else {}),
        },
        "method": {"name": config.method.name, "trains": config.method.trains, "head": config.method.head},
        "adapter": asdict(config.method.adapter) if config.method.adapter else None,
        "cut": k,
        "optim": optim,
        "seed": config.seed,
        "precision": config.trainer.precision,
        "storage": config.cache.dtype if recycled(config) else None,
    }
    return plain_tree(named)


def plain(config: Config) -> dict[str, Any]:
    """Return the configuration as JSON can hold it."""
    return plain_tree(asdict(config))


def plain_tree(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings as JSON can hold them."""
    return json.loads(json.dumps(tree, default=lambda enum: enum.value))  # type: ignore[no-any-return]


def run_id(named: dict[str, Any]) -> str:
    """Hash a run's identity to twelve characters."""
    return hashlib.blake2b(json.dumps(named, sort_keys=True).encode(), digest_size=6).hexdigest()


def run_dir(config: Config, identifier: str) -> Path:
    """Return where the run's files live: the same for the same run, always."""
    runs = Path(config.paths.runs).expanduser()
    return runs / config.task.name / config.model.name / f"{config.method.name}-{identifier}"
