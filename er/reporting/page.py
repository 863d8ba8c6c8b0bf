"""The report as one HTML page that needs nothing beside it: no network, no server, no other file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from er import tables
from er.reporting.figures import Chart
from er.reporting.findings import Gain

HERE = Path(__file__).parent

KINDS = {
    "score_speed": "Score against speed",
    "score_cut": "Score against the cut",
    "time": "Where the time goes",
    "break_even": "When the cache has paid",
    "confusion": "What is taken for what",
}


class Column(NamedTuple):
    """A column of the table of all runs."""

    name: str
    title: str
    digits: int | None
    """After the point; nothing for text."""
    scale: float = 1.0


COLUMNS = [
    *(Column(name, name, None) for name in ("task", "model", "method", "cut", "arm", "storage", "differs", "seed")),
    Column("score", "score %", 1),
    Column("warm", "warm %", 0),
    Column("cold", "cold %", 0),
    Column("break_even", "even after", 1),
    *(Column(f"{name}_s", f"{name} s", 1) for name in ("build", "read", "train", "evaluate")),
    Column("train_tokens_s", "train tokens/s", 0),
    Column("evaluate_tokens_s", "eval tokens/s", 0),
    Column("bytes", "cached MB", 1, 1e-6),
    Column("hits", "hits", 0),
    Column("misses", "misses", 0),
    Column("rss_bytes", "peak MB", 0, 1e-6),
    Column("device_bytes", "device peak MB", 0, 1e-6),
    *(Column(name, name, None) for name in (*tables.TIMED, "finished", "run_id")),
]

KEPT = ("method", "seed", "finished", "run_id")
"""Shown though they be the same in every run."""


class Field(NamedTuple):
    """One run's value in one column."""

    text: str
    order: str
    """What to sort by."""
    number: bool


def page(table: pd.DataFrame, charts: list[Chart], **parts: Any) -> str:
    """Write the page; `parts` are what its template names besides."""
    loader = FileSystemLoader(HERE)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    columns, said = _columns(table)
    figures = {title: [each for each in charts if each.kind == kind] for kind, title in KINDS.items()}
    return environment.get_template("page.html").render(
        columns=columns,
        said=said,
        rows=[[_field(run[column.name], column) for column in columns] for run in _compared(table).to_dict("records")],
        figures=figures,
        signed=_signed,
        **parts,
    )


def headline(gain: Gain | None, runs: str) -> str:
    """Say in one sentence what came out."""
    if gain is None:
        return f"{runs}, and no speedup to show."
    pace = f"{abs(gain.cold):.0f}\u00a0% {'faster' if gain.cold >= 0 else 'slower'} than finetune, building counted"
    score = f", at {_signed(gain.points, 1)}\u00a0points of score" if gain.points == gain.points else ""
    return f"{'At best, recycling' if gain.settings > 1 else 'Recycling'} trains {pace}{score}."


def _signed(number: float, digits: int) -> str:
    return f"{number:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _columns(table: pd.DataFrame) -> tuple[list[Column], str]:
    """Choose the columns in which runs differ, and say what the others hold."""
    same = [name for name in (*tables.SETTING, *tables.TIMED) if table[name].nunique() == 1]
    hidden = [name for name in same if name not in KEPT]
    shown = [column for column in COLUMNS if column.name in table and column.name not in hidden]
    said = ", ".join(f"{name} {table[name].iloc[0]}" for name in hidden if str(table[name].iloc[0]))
    return shown, said


def _compared(table: pd.DataFrame) -> pd.DataFrame:
    """Leave the baseline's speedup over itself out."""
    return table.assign(**{name: table[name].where(table.method != "finetune") for name in ("warm", "cold")})


def _field(value: Any, column: Column) -> Field:
    if value is None or value != value:
        return Field("", "", column.digits is not None)
    if column.digits is None:
        return Field(str(value), str(value), isinstance(value, int | float))
    scaled = value * column.scale
    return Field(f"{scaled:,.{column.digits}f}", f"{scaled:.6g}", True)
