"""`er bench`: the arms of one model and cut on the same batches, paired in one process."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import hydra
from omegaconf import DictConfig

from er.checks import check_cut, cut_layer, recycled, settings
from er.config import CONF, Config
from er.errors import UserError

BY_WORK = (
    "the ratio of the multiplications in both arms' steps; the optimiser's work, which frozen weights spare, is none."
)

log = logging.getLogger(__name__)

CONDITIONS = ("task", "method", "storage", "precision", "attention", "random")
"""What measurements must have in common to stand in one table, besides hardware, packages and batches."""

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
    path = folder / f"{called(record)}.json"
    results.write_text(path, json.dumps(record, indent=2))
    parts = [report(record), *together(folder, record, results.write_text)]
    sys.stdout.write("\n\n".join(parts) + f"\n\nevery measurement: {path}\n")


def called(record: dict[str, Any]) -> str:
    """Return what a measurement's file is called."""
    told = {what: record[what] for what in ("storage", "precision") if record[what] != "float32"}
    unusual = [f"-{what}-{dtype}" for what, dtype in told.items()]
    return "{task}-{model}-{method}-{k}".format(**record) + "".join(unusual)


def together(folder: Path, record: dict[str, Any], write: Callable[[Path, str], None]) -> list[str]:
    """Put the models side by side that were timed in the same way, if there are several; keep that as `speed.md`."""
    from er import speed

    paths = sorted(folder.glob("{task}-*-{method}-*.json".format(**record)))
    alike = [each for each in map(read, paths) if each is not None and shared(each) == shared(record)]
    if len(alike) < 2:
        return []
    ordered = sorted(alike, key=lambda each: min(map(median, each["training"]["seconds"].values())))
    said = table(speed.side_by_side(ordered))
    write(folder / "speed.md", said + "\n")
    return ["Timed in the same way:", said, f"by work: {BY_WORK}"]


def read(path: Path) -> dict[str, Any] | None:
    """Read an earlier measurement; what is none is left out, and named."""
    from er import speed

    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        shared(record)
        speed.side_by_side([record])
        return dict(record)
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        log.warning("%s is left out: er bench reads no measurement there (%r). Move it away.", path, error)
        return None


def shared(record: dict[str, Any]) -> Any:
    """Return what measurements must have in common to stand in one table; older ones do not say all of it."""
    conditions = [record.get(each) for each in CONDITIONS]
    machine = [record["env"][each] for each in ("host", "device", "cpus", "packages")]
    return conditions, machine, [record[mode]["batch_size"] for mode in ("training", "inference")]


def measure(config: Config) -> dict[str, Any]:
    """Return the seconds of every arm, and what they were measured on."""
    from er import encoders, results
    from er.benchmarks.bench import bench
    from er.benchmarks.workload import workload
    from er.training.recycle import device_of

    depth = encoders.depth(encoders.load_config(config.model))
    k = cut_layer(config.method.cut, depth)
    check_cut(config, k)
    work = workload(config)
    device = device_of(config)
    about = {
        "task": work.name,
        "model": config.model.name,
        "method": config.method.name,
        "k": k,
        "depth": depth,
        "storage": config.cache.dtype.name,
        "precision": config.trainer.precision.name,
        "attention": config.model.attention,
        "random": config.model.random,
    }
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
        f"{head}; batches {sizes}; " + "computed in {precision}, stored in {storage}".format(**record),
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
