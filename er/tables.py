"""Results as tables: one row a run, one row a setting, and speedups that are paired or absent."""

from __future__ import annotations

from typing import Any

import pandas as pd

from er import results
from er.results import Result

HARDWARE = ["host", "device", "cpus"]

TIMED = [*HARDWARE, "versions", "attention", "together"]
"""What runs must share for their seconds to be averaged or divided; their scores need not share it."""

LIKE = ["task", "data", "model", "seed", "batch_size", "precision", "limit", "max_length"]
"""What a run shares with the baseline that its score is compared with."""

PAIRED = [*LIKE, *TIMED]
"""What a run shares with the baseline of its speedup: one across hardware, versions or batch sizes means nothing."""

SETTING = ["task", "model", "method", "cut", "arm", "storage", "differs"]
"""What the seeds of one row of the summary share."""

SEEN = ("seed", "cut", "storage", "task.name", "model.name", "method.name")
"""Fields of an identity that have a column of their own."""


def row(result: Result) -> dict[str, Any]:
    """Flatten a result to one row."""
    named, seconds, cache = result.identity, result.seconds, result.cache or {}
    metrics = {name.removeprefix("test/"): value for name, value in result.metrics.items() if "test/" in name}
    return {
        "task": named["task"]["name"],
        "data": named["task"].get("source", ""),
        "model": named["model"]["name"],
        "method": method(named),
        "cut": named["cut"],
        "arm": arm(result),
        "storage": named["storage"] or "",
        "seed": named["seed"],
        "batch_size": named["optim"]["batch_size"],
        "limit": named["task"]["limit"] or 0,
        "max_length": named["task"].get("max_length") or 0,
        "precision": named["precision"],
        **{name: result.env[name] for name in HARDWARE},
        "versions": ", ".join(f"{name} {number}" for name, number in result.env.get("packages", {}).items()),
        "attention": result.config["model"].get("attention", ""),
        "together": result.env.get("together", 1),
        "commit": result.env.get("commit") or "",
        **metrics,
        "dev": 100 * results.score(result.metrics, "dev"),
        **{f"{phase}_s": value for phase, value in seconds.items()},
        "steps": result.steps,
        "epochs": len(result.history),
        "step_s": (seconds["train"] + seconds["read"]) / max(result.steps, 1),
        "cost_s": cache.get("cost", 0.0),
        "bytes": cache.get("bytes", 0),
        "hits": cache.get("hits", 0),
        "misses": cache.get("misses", 0),
        **{f"{phase}_tokens_s": value for phase, value in result.tokens_s.items()},
        **{f"{name}_bytes": value for name, value in result.memory.items()},
        "run_id": result.run_id,
    }


def method(named: dict[str, Any]) -> str:
    """Name the method, and how texts were encoded where that is not jointly: "reduced, separate"."""
    return ", ".join([named["method"]["name"], *filter(None, [named["task"].get("encode")])])


DIGEST = r"^([0-9a-f]{12})[0-9a-f]{4,}$"
"""Of a digest the beginning is told: nobody compares all of it."""


def with_differences(table: pd.DataFrame, identities: list[dict[str, Any]]) -> pd.DataFrame:
    """Add what tells runs apart that agree in every column of SETTING: other data, another learning rate.

    Without it they would pass for seeds of one setting, and be averaged.
    """
    fields = pd.json_normalize(identities).astype(str).set_index(table.index)
    fields = fields.drop(columns=[name for name in SEEN if name in fields])
    said = pd.Series("", index=table.index)
    for _, rows in table.groupby(SETTING[:-1], sort=False):
        within = fields.loc[rows.index]
        for name in within.columns[within.nunique() > 1]:
            shown = within[name].str.replace(DIGEST, r"\1", regex=True)
            said[rows.index] += name.removeprefix("task.").removeprefix("optim.").removeprefix("adapter.")
            said[rows.index] += "=" + shown + " "
    return table.assign(differs=said.str.rstrip())


def arm(result: Result) -> str:
    """Name the arm: everything trains, or the lower layers are frozen and recomputed, or recycled."""
    if result.cache is not None:
        return "recycled"
    return "frozen" if result.config["method"]["recycles"] else "online"


def baselines(table: pd.DataFrame, like: list[str], method: str = "finetune") -> pd.DataFrame:
    """Return the one run of the baseline for each combination of the fields `like`.

    Of several settings it is the one that scores best on dev in the mean of its seeds, or, for a seed that it lacks,
    the next best: no setting is chosen by chance, or by what it scores on test.
    """
    base = table.loc[table.method == method]
    settings = base.groupby([name for name in [*like, "differs"] if name != "seed"])
    ranked = base.assign(preferred=settings.dev.transform("mean").fillna(float("-inf")))
    ranked = ranked.sort_values(["preferred", "differs", "run_id"], ascending=[False, True, True])
    return ranked.drop(columns="preferred").drop_duplicates(like)


def with_speedups(table: pd.DataFrame, baseline: str = "finetune") -> pd.DataFrame:
    """Add speedups in percent over `baseline`: warm (the cache exists) and cold (building it counted).

    Both compare the seconds of equally many training steps, reading included, so that a run that stopped
    early gains nothing by it. Building is counted in full for every run that uses the entries, whoever built
    them. A run with no baseline on the same hardware gets NaN, not a guess.
    """
    base = baselines(table, PAIRED, baseline)[[*PAIRED, "step_s"]]
    paired = table.merge(base, on=PAIRED, how="left", suffixes=("", "_base"), validate="many_to_one")
    paired["saved_s"] = (paired.step_s_base - paired.step_s) * paired.steps / paired.epochs
    paired["warm"] = (paired.step_s_base / paired.step_s - 1) * 100
    paired["cold"] = (paired.step_s_base / (paired.step_s + paired.cost_s / paired.steps) - 1) * 100
    paired["break_even"] = break_even(paired.cost_s, paired.saved_s)
    return paired.drop(columns="step_s_base")


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Average the seeds of each setting; scores get their standard deviation where there are several.

    Runs of different hardware or versions are different rows: a mean of their seconds is nobody's.
    """
    mixed = [name for name in TIMED if table[name].nunique() > 1]
    groups = table.groupby([*SETTING, *mixed], sort=False)
    scores = [name for name in results.SCORES if name in table]
    out = groups[["build_s", "read_s", "train_s", "evaluate_s", "warm", "cold"]].mean()
    out["break_even"] = break_even(groups["cost_s"].mean(), groups["saved_s"].mean())
    out.insert(0, "seeds", groups["seed"].nunique())
    for place, name in enumerate(scores, start=1):
        out.insert(place, name, spread(groups[name].mean() * 100, groups[name].std() * 100))
    out["cached MB"] = groups["bytes"].max() / 1e6
    baseline = (out.index.get_level_values("method") == "finetune").tolist()
    out.loc[baseline, ["warm", "cold"]] = float("nan")
    return out.reset_index()


def common(table: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """Take the settings that all rows share out of a table, and say them in one line."""
    shared = [name for name in SETTING if name in table and len(table) > 1 and len(set(table[name]) - {""}) == 1]
    said = ", ".join(f"{name} {max(map(str, table[name]))}" for name in shared)
    nowhere = [name for name in SETTING if name in table and set(table[name]) == {""}]
    return said, table.drop(columns=[*shared, *nowhere])


def break_even(cost: pd.Series, saved: pd.Series) -> pd.Series:
    """Return after how many epochs the building has paid; nothing where none was built, or nothing is saved."""
    return (cost / saved).where((saved > 0) & (cost > 0))


def spread(mean: pd.Series, deviation: pd.Series) -> pd.Series:
    """Write means with their deviations, where there are any."""
    texts = mean.map("{:.2f}".format)
    texts = texts.where(deviation.isna(), texts + " ± " + deviation.map("{:.2f}".format))
    return texts.where(mean.notna(), "")  # tasks of one table need not share their scores
