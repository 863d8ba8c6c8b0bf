"""`er bench`: the arms of one model and cut on the same batches, paired in one process."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from statistics import median
from typing import Any

import hydra
from omegaconf import DictConfig

from er.checks import check_cut, cut_layer, recycled, settings
from er.config import CONF, Config
from er.errors import UserError

BASES = ("finetune", "adapters", "frozen")
"""The arms that recycle nothing: what recycling is measured against."""

DIGITS = {"median ms": ".1f", "arm / ram": ".3f"}


@hydra.main(config_path=str(CONF), config_name="bench", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Time the arms; print the table, and write every measurement beside the runs."""
    config = settings(cfg)
    if not recycled(config):
        raise UserError(f"method={config.method.name}, cache.mode={config.cache.mode.value}: nothing is recycled here.")
    logging.getLogger("er").setLevel(logging.WARNING)  # many small caches are built here, and none is worth a line
    record = measure(config)
    from er import results

    path = Path(config.paths.runs).expanduser() / "bench" / "{task}-{model}-{method}-{k}.json".format(**record)
    results.write_text(path, json.dumps(record, indent=2))
    sys.stdout.write(f"{table(record)}\nevery measurement: {path}\n")


def measure(config: Config) -> dict[str, Any]:
    """Return the seconds of every arm, and what they were measured on."""
    import torch

    from er import encoders, results
    from er.training.bench import bench
    from er.training.workload import workload

    depth = encoders.depth(encoders.load_config(config.model))
    k = cut_layer(config.method.cut, depth)
    check_cut(config, k)
    work = workload(config)
    device = torch.device("cuda" if torch.cuda.is_available() and config.trainer.accelerator != "cpu" else "cpu")
    about = {"task": work.name, "model": config.model.name, "method": config.method.name, "k": k, "depth": depth}
    seconds = bench(config, k, work, device)
    return {**about, "batch_size": config.optim.batch_size, "env": results.environment(str(device)), "seconds": seconds}


def table(record: dict[str, Any]) -> str:
    """Write medians, and each arm's speedup as a ratio over the same batches."""
    import pandas as pd

    from er.training.bench import ratio

    rows = []
    for mode in ("training", "inference"):
        seconds = record["seconds"][mode]
        rows += [
            {
                "": mode,
                "arm": arm,
                "median ms": median(seconds[arm]) * 1000,
                **{f"{base} / arm": ratio(seconds, base, arm) for base in BASES if base in seconds},
                **({"arm / ram": ratio(seconds, arm, "ram")} if "ram" in seconds else {}),
            }
            for arm in seconds
        ]
    digits = [DIGITS.get(name, ".2f") for name in rows[0]]
    shown = pd.DataFrame(rows).to_markdown(index=False, tablefmt="simple", floatfmt=digits)
    build = ratio(record["seconds"]["build"], "build", "plain")
    head = "{task}, {model}, {method}, cut at layer {k} of {depth}, batches of {batch_size}".format(**record)
    return f"{head}\n\n{shown}\n\nbuilding the cache / a plain forward of the {record['k']} layers: {build:.3f}"
