"""What the seconds of a bench mean: ratios over the same batches, what recycling costs, and when that has paid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median, quantiles
from typing import Any

Seconds = Mapping[str, list[float]]

MODES = ("training", "inference")

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
    """Return a row for each mode and baseline of the recycled arm: what it gains, and when the cache has paid.

    Warm, the cache is there; cold, it is built for a single pass over the inputs. After `even after` passes (epochs of
    training, or tasks that predict once) building has paid. Of two limits of the ratio, `by layers` is N / (N - k), of
    which `of limit` is reached, and `by work` what the multiplications of both arms come to: adapters add some to the
    recycled arm, and what is frozen needs no gradients.
    """
    built = cost(record)
    layers = record["depth"] / max(record["depth"] - record["k"], 1)
    rows = []
    for name in MODES:
        mode = record[name]
        for base in [base for base in BASES if {base, "recycled"} <= mode["seconds"].keys()]:
            online, factor = per_thousand(mode, base), ratio(mode["seconds"], base, "recycled")
            recycled = online / factor
            row = {
                "": name,
                "recycled against": base,
                "ratio": factor,
                "by layers": layers,
                "by work": work(mode, base),
                "of limit": factor / layers,
                "warm %": (factor - 1) * 100,
                "cold %": (online / (recycled + built) - 1) * 100,
                "even after": built / (online - recycled) if online > recycled else float("nan"),
            }
            rows.append(row)
    return rows


def work(mode: Mapping[str, Any], base: str) -> float:
    """Return how many times the multiplications of the recycled arm an arm does."""
    counts = mode["multiplications"]
    return float(counts[base] / counts["recycled"])


def side_by_side(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each model and mode: what its arms take, and each ratio to the recycled one beside its limit."""
    return [
        {
            "model": record["model"],
            "cut": f"{record['k']}/{record['depth']}",
            "": name,
            **{f"{arm} ms": median(each) * 1000 for arm, each in record[name]["seconds"].items()},
            **{
                column: value
                for base in BASES
                if {base, "recycled"} <= record[name]["seconds"].keys()
                for column, value in (
                    (f"{base} / recycled", ratio(record[name]["seconds"], base, "recycled")),
                    (f"by work ({base})", work(record[name], base)),
                )
            },
        }
        for record in records
        for name in MODES
    ]


def cost(record: Mapping[str, Any]) -> float:
    """Return the seconds that building the cache takes for 1,000 inputs."""
    build = record["build"]
    return float(median(build["seconds"]["build"]) / build["inputs"] * 1000)


def spoken(seconds: float) -> str:
    """Write a time in the unit that suits it."""
    for unit, size in {"hours": 3600, "minutes": 60}.items():
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} seconds"
