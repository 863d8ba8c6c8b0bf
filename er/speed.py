"""What the seconds of a bench mean: ratios over the same batches, what recycling costs, and when that has paid."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median, quantiles
from typing import Any

Seconds = Mapping[str, list[float]]

BASES = ("finetune", "adapters", "frozen")
"""The arms that recycle nothing: what recycling is measured against."""


def ratio(seconds: Seconds, of: str, over: str) -> float:
    """Return the median, over batches, of one arm's seconds over another's for that very batch."""
    return median(a / b for a, b in zip(seconds[of], seconds[over], strict=True))


def arms(mode: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each arm of one mode: its time, its spread, and its ratio to each of the others' batches."""
    seconds: Seconds = mode["seconds"]
    return [
        {
            "arm": arm,
            "median ms": median(seconds[arm]) * 1000,
            "spread %": spread(seconds[arm]) * 100,
            "s / 1,000 inputs": per_thousand(mode, arm),
            **{f"{base} / arm": ratio(seconds, base, arm) for base in BASES if base in seconds},
            **({"arm / ram": ratio(seconds, arm, "ram")} if "ram" in seconds else {}),
        }
        for arm in seconds
    ]


def spread(seconds: list[float]) -> float:
    """Return the distance between the quartiles, as a fraction of the median."""
    low, middle, high = quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
    return (high - low) / middle


def per_thousand(mode: Mapping[str, Any], arm: str) -> float:
    """Return the seconds that an arm takes for 1,000 inputs; by the median batch, which no hiccup moves."""
    return float(median(mode["seconds"][arm]) / mode["batch_size"] * 1000)


def phases(mode: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each arm of one mode: the percentage of its time that each phase takes."""
    return [
        {"arm": arm, **{phase: spent / sum(each.values()) * 100 for phase, spent in each.items()}}
        for arm, each in mode["phases"].items()
    ]


def economy(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each mode and baseline of the recycled arm: speedups in percent, and when the cache has paid.

    Warm, the cache is there; cold, it is built for a single pass over the inputs. After `even after` passes (epochs of
    training, or tasks that predict once) building has paid. The layers alone would allow a ratio of N / (N - k): `of
    limit` is the share of it that is reached.
    """
    built = cost(record)
    limit = record["depth"] / max(record["depth"] - record["k"], 1)
    rows = []
    for name in ("training", "inference"):
        mode = record[name]
        for base in [base for base in BASES if {base, "recycled"} <= mode["seconds"].keys()]:
            online, factor = per_thousand(mode, base), ratio(mode["seconds"], base, "recycled")
            recycled = online / factor
            row = {
                "": name,
                "recycled against": base,
                "warm %": (factor - 1) * 100,
                "cold %": (online / (recycled + built) - 1) * 100,
                "even after": built / (online - recycled) if online > recycled else float("nan"),
                "of limit": factor / limit,
            }
            rows.append(row)
    return rows


def cost(record: Mapping[str, Any]) -> float:
    """Return the seconds that building the cache takes for 1,000 inputs."""
    build = record["build"]
    return float(median(build["seconds"]["build"]) / build["inputs"] * 1000)
