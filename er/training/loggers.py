"""Mirrors of `result.json`: CSV files, Weights & Biases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
from hydra.core.hydra_config import HydraConfig

from er import identity, mirror, results, tables
from er.config import Config
from er.errors import UserError
from er.results import Result
from er.training import ranks

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger, WandbLogger

LOGGERS = ("none", "csv", "wandb")

SUMMARY = ("metrics", "seconds", "steps", "cache", "parameters", "split", "tokens_s", "memory")
"""What of a result is searchable at W&B."""


@contextmanager
def opened(config: Config, named: dict[str, Any], directory: Path) -> Iterator[Logger | None]:
    """Open the configured logger for the run of this identity, and close it however the run ends.

    Its W&B id is the run id, so that a run which is interrupted and issued again goes on as the same W&B run; the runs
    of an experiment are one group.
    """
    name, options = config.logger.name, config.logger.options
    if name not in LOGGERS:
        raise UserError(f"logger.name={name}: the loggers are {', '.join(LOGGERS)}.")
    if name == "none" or ranks.rank() > 0:
        yield None
    elif name == "csv":
        from pytorch_lightning.loggers import CSVLogger

        yield CSVLogger(directory, name="", version="", **options)
    else:
        from pytorch_lightning.loggers import WandbLogger

        parts = [config.task.name, config.model.name, config.method.name]
        settings = {"job_type": "train", "tags": parts, "reinit": "create_new", **options}  # others may be open
        settings["group"] = options.get("group") or given()["experiment"]
        logger = WandbLogger("/".join(parts), directory, id=identity.run_id(named), resume="allow", **settings)
        with mirror.ended(mirror.started(lambda: logger.experiment)):
            logger.log_hyperparams(identity.plain(config) | given() | {"cut_layer": named["cut"], "identity": named})
            yield logger


def given() -> dict[str, Any]:
    """Return the experiment and the overrides that the command line gave, where there was one."""
    if not HydraConfig.initialized():
        return {"experiment": None, "overrides": []}
    hydra = HydraConfig.get()
    return {"experiment": hydra.runtime.choices.get("experiment"), "overrides": list(hydra.overrides.task)}


def send(logger: Logger | None, result: Result, directory: Path) -> None:
    """Send the finished record, and, to W&B, what lies in the run's directory."""
    if logger is None:
        return
    record = asdict(result)
    if result.config["logger"]["name"] == "csv":
        logger.log_hyperparams({"config": record["config"], "identity": record["identity"], "env": record["env"]})
        return
    import wandb

    logger.log_hyperparams({"env": record["env"]})
    run: Any = cast("WandbLogger", logger).experiment
    run.summary.update(mirror.flat({part: record[part] for part in SUMMARY} | {"speedup": speedups(result, directory)}))
    artifact = wandb.Artifact(f"result-{result.run_id}", type="result", metadata=record["metrics"])
    for path in sorted(directory.glob("*.json*")):
        artifact.add_file(str(path), policy="immutable")
    run.log_artifact(artifact)


def speedups(result: Result, directory: Path) -> dict[str, float]:
    """Return by how much a run was faster than the finetune run that is its pair, if that is done already."""
    rows, identities = [tables.row(result)], [result.identity]
    for path in directory.parent.glob(f"finetune-*/{results.NAME}"):
        with suppress(UserError, KeyError, TypeError, AttributeError):
            found = results.read(path)
            rows.append(tables.row(found))
            identities.append(found.identity)
    if len(rows) == 1 or rows[0]["method"] == "finetune":
        return {}
    ours = tables.with_speedups(tables.with_differences(pd.DataFrame(rows), identities)).iloc[0]
    return {name: float(ours[name]) for name in ("warm", "cold", "break_even") if ours[name] == ours[name]}
