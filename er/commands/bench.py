"""`er bench`: the arms of one model and cut on the same batches, paired in one process."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from er.checks import check_cut, cut_layer, recycled, settings
from er.config import CONF, Config
from er.errors import UserError

BY_WORK = (
    "the ratio of the multiplications in both arms' steps; the optimiser's work, which frozen weights spare, is none."
)

DIGITS = {"median ms": ".1f", "arm / ram": ".3f"} | dict.fromkeys(
    ("spread %", "warm %", "cold %", "read", "copy", "forward", "backward", "optimiser"), ".0f"
)


@hydra.main(config_path=str(CONF), config_name="bench", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Time the arms; print the table, and write every measurement beside the runs."""
    config = settings(cfg)
    if not recycled(config):
        raise UserError(f"method={config.method.name}, cache.mode={config.cache.mode.value}: nothing is recycled here.")
    logging.getLogger("er").setLevel(logging.WARNING)  # many small caches are built here, and none is worth a line
    record = measure(config)
    from er import results

    folder = Path(config.paths.runs).expanduser() / "bench"
    path = folder / "{task}-{model}-{method}-{k}.json".format(**record)
    results.write_text(path, json.dumps(record, indent=2))
    parts = [report(record), *together(folder, record, results.write_text)]
    sys.stdout.write("\n\n".join(parts) + f"\n\nevery measurement: {path}\n")


def together(folder: Path, record: dict[str, Any], write: Callable[[Path, str], None]) -> list[str]:
    """Put the models side by side that were timed in the same way, if there are several; keep that as `speed.md`."""
    from er import speed

    there = [json.loads(path.read_text()) for path in folder.glob("{task}-*-{method}-*.json".format(**record))]
    alike = [each for each in there if shared(each) == shared(record)]
    if len(alike) < 2:
        return []
    ordered = sorted(alike, key=lambda each: sum(each["training"]["seconds"]["recycled"]))
    said = table(speed.side_by_side(ordered))
    write(folder / "speed.md", said + "\n")
    return ["Timed in the same way:", said, f"by work: {BY_WORK}"]


def shared(record: dict[str, Any]) -> Any:
    """Return what measurements must have in common to stand in one table."""
    hardware = [record["env"][name] for name in ("host", "device", "cpus")]
    sizes = [record[mode].get("batch_size") for mode in ("training", "inference")]
    return record["task"], record["method"], hardware, sizes, "multiplications" in record["training"]


def measure(config: Config) -> dict[str, Any]:
    """Return the seconds of every arm, and what they were measured on."""
    import torch

    from er import encoders, results
    from er.benchmarks.bench import bench
    from er.benchmarks.workload import workload

    depth = encoders.depth(encoders.load_config(config.model))
    k = cut_layer(config.method.cut, depth)
    check_cut(config, k)
    work = workload(config)
    device = torch.device("cuda" if torch.cuda.is_available() and config.trainer.accelerator != "cpu" else "cpu")
    about = {"task": work.name, "model": config.model.name, "method": config.method.name, "k": k, "depth": depth}
    return {**about, "env": results.environment(str(device)), **bench(config, k, work, device)}


def report(record: dict[str, Any]) -> str:
    """Write the arms side by side, where their time went, and what recycling costs and saves."""
    from er import speed

    build, modes = record["build"], ("training", "inference")
    share = speed.ratio(build["seconds"], "build", "plain")
    head = "{task}, {model}, {method}, cut at layer {k} of {depth}".format(**record)
    sizes = " and ".join(f"of {record[mode]['batch_size']} for {mode}" for mode in modes)
    cost = f"{speed.cost(record):.2f} s and {build['bytes'] / build['inputs'] / 1e3:.1f} MB for 1,000 inputs"
    parts = [
        f"{head}; batches {sizes}",
        table([{"": mode, **row} for mode in modes for row in speed.arms(record[mode])]),
        "Where the time went, in percent:",
        table([{"": mode, **row} for mode in modes for row in speed.phases(record[mode])]),
        f"Building the cache takes {cost}, {share:.3f} times a plain forward pass of those layers.",
        table(speed.economy(record)),
        "Most memory at once, with all arms: {rss:.1f} GB".format(rss=record["memory"]["rss"] / 1e9),
        f"by layers: N / (N - k), which is what the layers alone allow. by work: {BY_WORK}",
    ]
    return "\n\n".join(parts)


def table(rows: list[dict[str, Any]]) -> str:
    """Write rows as a table; what a row lacks stays empty."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    digits = [DIGITS.get(name, ".2f") for name in frame.columns]
    filled = frame.astype(object).where(frame.notna(), None)
    return filled.to_markdown(index=False, tablefmt="simple", floatfmt=digits, missingval="")
