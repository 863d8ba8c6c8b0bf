"""Mirrors of `result.json`: CSV files, Weights & Biases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from er.config import Config
from er.errors import UserError
from er.results import Result

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger, WandbLogger

LOGGERS = ("none", "csv", "wandb")


@contextmanager
def opened(config: Config, run_id: str, directory: Path) -> Iterator[Logger | None]:
    """Open the configured logger, and close it however the run ends.

    A W&B run that stayed open would swallow the next run of a sweep. Its id is the run id, so that a run
    which is interrupted and issued again goes on as the same W&B run.
    """
    name, options = config.logger.name, config.logger.options
    if name not in LOGGERS:
        raise UserError(f"logger.name={name}: the loggers are {', '.join(LOGGERS)}.")
    if name == "none":
        yield None
    elif name == "csv":
        from pytorch_lightning.loggers import CSVLogger

        yield CSVLogger(directory, name="", version="", **options)
    else:
        import wandb
        from pytorch_lightning.loggers import WandbLogger

        title = f"{config.task.name}/{config.model.name}/{config.method.name}"
        try:
            yield WandbLogger(name=title, id=run_id, resume="allow", save_dir=directory, **options)
        finally:
            wandb.finish()


def mirror(logger: Logger | None, result: Result) -> None:
    """Send the finished record to the logger."""
    if logger is None:
        return
    record = asdict(result)
    logger.log_hyperparams({"config": record["config"], "identity": record["identity"], "env": record["env"]})
    if result.config["logger"]["name"] == "wandb":
        parts = ("metrics", "seconds", "steps", "cache", "parameters", "split")
        summary: Any = cast("WandbLogger", logger).experiment.summary
        summary.update(flat({part: record[part] for part in parts}))


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to one with slashes in its keys."""
    out: dict[str, Any] = {}
    for name, value in tree.items():
        out |= flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return out
