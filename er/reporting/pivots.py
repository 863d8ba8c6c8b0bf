"""Pivots: one figure of all runs, by any fields of their configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from er import results, tables
from er.errors import UserError
from er.reporting.significance import SIGNIFICANT
from er.results import Result
from er.statistics import Difference

TITLES = {
    "score": "Score",
    "dev": "Score on dev",
    "warm": "Warm speedup, %",
    "cold": "Cold speedup, %",
    "break_even": "Epochs to break even",
}

SPEEDUPS = ("warm", "cold", "break_even")

HIGHER = {"score", "dev", "warm", "cold", *results.SCORES}
"""Values of which the greatest is the best; of others none is marked."""


SIGNS = (
    "⁺ ⁻: significantly better or worse than finetune (paired bootstrap over the test examples, each the mean of its "
    "seeds; p < 0.05 after Benjamini-Hochberg). Where finetune was run with several settings, it is the one that "
    "scores best on dev in the mean of its seeds; for a seed that it lacks, the next best."
)


@dataclass(frozen=True)
class Cell:
    """The runs of one row and column."""

    mean: float
    deviation: float
    """Over the runs; NaN where there is one."""
    count: int
    best: bool
    """Whether no other cell of its row has a higher mean."""
    sign: str
    """`+` or `-` where the difference to finetune is significant."""

    @property
    def text(self) -> str:
        """The mean, and the deviation where there is one."""
        spread = "" if pd.isna(self.deviation) else f" ± {self.deviation:.1f}"
        return f"{self.mean:.1f}{spread}"


@dataclass
class Pivot:
    """A table of means over whatever is neither its rows nor its columns."""

    title: str
    said: str
    """What all cells share."""
    heads: list[str]
    """The fields of the rows."""
    columns: list[str]
    rows: list[tuple[tuple[str, ...], list[Cell | None]]]
    mixed: list[str]
    """Fields besides the seed in which runs of one cell differ."""

    @property
    def usual(self) -> int:
        """How many runs most cells hold."""
        counts = [cell.count for _, row in self.rows for cell in row if cell is not None]
        return max(counts, key=counts.count)

    @property
    def notes(self) -> str:
        """What a reader has to know of the cells."""
        cells = [cell for _, row in self.rows for cell in row if cell is not None]
        said = [f"All of {self.said}."] if self.said else []
        said += [f"Mean ± standard deviation of {self.usual} runs, or as said."] if self.usual > 1 else []
        said += ["Bold: the best of its row."] if any(cell.best for cell in cells) else []
        said += [SIGNS] if any(cell.sign for cell in cells) else []
        said += [f"Runs of one cell also differ in {', '.join(self.mixed)}."] if self.mixed else []
        return " ".join(said)


def pivot(
    table: pd.DataFrame,
    done: list[Result],
    rows: list[str],
    columns: list[str],
    value: str,
    differences: dict[Hashable, Difference],
) -> Pivot:
    """Build a pivot; fields that are the same everywhere leave it, and are said once.

    Seconds and speedups of different hardware or versions get rows of their own. `differences` is by the
    fields of `tables.SETTING`; a cell that holds several settings gets no mark.
    """
    table = _ordered(_measured(with_fields(table, done, [*rows, *columns, value]), value), [*rows, *columns])
    shared = [name for name in (*rows, *columns) if table[name].nunique(dropna=False) <= 1]
    said = ", ".join(f"{name} {table[name].iloc[0]}" for name in shared if len(table) and _text(table[name].iloc[0]))
    rows, columns = ([name for name in fields if name not in shared] for fields in (rows, columns))
    rows = rows + [name for name in _apart(table, value) if name not in rows]
    table = table.assign(_row=_joined(table, rows), _column=_joined(table, columns))
    across = list(dict.fromkeys(table._column))
    groups: dict[Any, pd.DataFrame] = dict(list(table.groupby(["_row", "_column"], sort=False)))
    sizes = Counter(table[tables.SETTING].itertuples(index=False, name=None))
    cells = {key: _cell(group, value, sizes, differences) for key, group in groups.items()}
    lines = [(row, _best([cells.get((row, column)) for column in across], value)) for row in dict.fromkeys(table._row)]
    return Pivot(TITLES.get(value, value), said, rows, _titles(across, columns), lines, _mixed(groups, done))


def _measured(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Keep the runs that have the value; a speedup of the baseline over itself is none."""
    if not pd.api.types.is_numeric_dtype(table[value]):
        raise UserError(f"report.values={value}: its values are no numbers. Give a column of runs.csv that holds some.")
    if value in SPEEDUPS:
        table = table.loc[table.method != "finetune"]
    share = 100 if value in results.SCORES else 1
    return table.assign(**{value: share * table[value]}).dropna(subset=[value])


def _ordered(table: pd.DataFrame, fields: list[str]) -> pd.DataFrame:
    """Put runs in the order of their numbers, and of the texts of the configuration; other columns are in order."""

    def rank(column: pd.Series) -> pd.Series:
        numbers = pd.to_numeric(column, errors="coerce")
        if numbers.notna().all():
            return numbers
        texts = column.map(_text)
        return texts if "." in str(column.name) else pd.Series(pd.factorize(texts)[0], index=column.index)

    return table.sort_values(fields, kind="stable", key=rank) if fields else table


def _apart(table: pd.DataFrame, value: str) -> list[str]:
    """Return what must not be averaged over: times on different hardware."""
    if value in ("score", "dev", *results.SCORES):
        return []
    return [name for name in tables.TIMED if table[name].nunique() > 1]


def _cell(group: pd.DataFrame, value: str, sizes: Counter[Any], differences: dict[Hashable, Difference]) -> Cell:
    sign = _sign(group, sizes, differences) if value == "score" else ""
    return Cell(float(group[value].mean()), float(group[value].std()), len(group), False, sign)


def _best(cells: list[Cell | None], value: str) -> list[Cell | None]:
    """Mark the best of a row, and all that look the same."""
    means = [cell.text.split()[0] for cell in cells if cell is not None]
    if len(cells) < 2 or value not in HIGHER:
        return cells
    top = max(means, key=float)
    return [cell and replace(cell, best=cell.text.split()[0] == top) for cell in cells]


def with_fields(table: pd.DataFrame, done: list[Result], fields: list[str]) -> pd.DataFrame:
    """Add each field that is no column yet: a dotted path of the identity or of the configuration."""
    new = {name: [_lookup(result, name) for result in done] for name in fields if name not in table}
    for name, values in new.items():
        if all(value is None for value in values):
            columns = ", ".join(table.columns)
            raise UserError(f"No run has a field {name!r}: give one of {columns}, or a dotted one (optim.lr).")
    return table.assign(**new)


def _lookup(result: Result, path: str) -> Any:
    for tree in (result.identity, result.config):
        found: Any = tree
        for name in path.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        if found is not None:
            return found if isinstance(found, int | float | str | bool) else str(found)
    return None


def _joined(table: pd.DataFrame, fields: list[str]) -> pd.Series:
    """Return the fields of each row as one value."""
    texts = [tuple(map(_text, row)) for row in table[fields].itertuples(index=False)]
    return pd.Series(texts, index=table.index, dtype=object)


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value)


def _titles(across: list[tuple[str, ...]], fields: list[str]) -> list[str]:
    """Name each column by the fewest of its fields that no other column has, too."""
    return [" ".join(_words(column, across, fields)) or "all" for column in across]


def _words(column: tuple[str, ...], across: list[tuple[str, ...]], fields: list[str]) -> list[str]:
    kept = [place for place, value in enumerate(column) if value]
    bare = {place: column[place].replace(".", "", 1).isdigit() for place in kept}
    for place in [each for each in reversed(kept[1:]) if not bare[each] or column[each] == "0"]:
        fewer = [each for each in kept if each != place]
        if sum(all(other[each] == column[each] for each in fewer) for other in across) == 1:
            kept = fewer
    return [f"{fields[place].rpartition('.')[2]} {column[place]}" if bare[place] else column[place] for place in kept]


def _sign(group: pd.DataFrame, sizes: Counter[Any], differences: dict[Hashable, Difference]) -> str:
    """Mark a cell that holds all seeds of one setting, and nothing else, if they differ significantly."""
    settings = list(dict.fromkeys(group[tables.SETTING].itertuples(index=False, name=None)))
    found = differences.get(settings[0])
    if found is None or found.p >= SIGNIFICANT or len(settings) > 1 or sizes[settings[0]] != len(group):
        return ""
    return "+" if found.mean > 0 else "-"


def _mixed(groups: dict[Any, pd.DataFrame], done: list[Result]) -> list[str]:
    """Return the parts of the identity, seed apart, in which runs of one cell differ."""
    found: dict[str, None] = {}
    for group in groups.values():
        trees = [_leaves(done[place].identity) for place in group.index]
        names = dict.fromkeys(name for tree in trees for name in tree)
        found |= {name: None for name in names if name != "seed" and len({str(tree.get(name)) for tree in trees}) > 1}
    return list(found)


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found
