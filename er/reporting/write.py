"""Everything that a report consists of, beside the runs or elsewhere."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from er import results, speed, tables
from er.config import Report
from er.reporting.claims import beside, next_to_paper
from er.reporting.confusion import matrices
from er.reporting.figures import PLACE, Chart, charts
from er.reporting.findings import Opening, counted, opening
from er.reporting.gather import Gathered
from er.reporting.glossary import explained
from er.reporting.page import KINDS as TITLES
from er.reporting.page import headline, page
from er.reporting.pending import NEVER, Pending, pending
from er.reporting.pivots import Pivot, pivot
from er.reporting.significance import differences, with_baseline
from er.reporting.texts import latex, markdown

MOST_PENDING = 200
"""Commands that the page shows; `er report report.pending=true` prints all."""


FILES = ("report.html", "report.md", "report.tex", "runs.csv", "runs.parquet")

FIGURES = "figures"
"""The folder of the figures, each as SVG and PNG."""


@dataclass(frozen=True)
class Written:
    """What a report says, besides its files."""

    opening: Opening
    pivots: list[Pivot]
    pending: list[Pending]
    """What is still to be run."""


def write(found: Gathered, wanted: Report, summary: str, to: Path) -> Written:
    """Write the tables, the figures and the page."""
    known = differences(with_baseline(found.table), tables.SETTING)
    rows, columns, values = (names(given) for given in (wanted.rows, wanted.columns, wanted.values))
    pivots = [pivot(found.table, found.done, rows, columns, value, known) for value in values]
    pivots = [each for each in pivots if each.rows]
    claims, timed, todo = beside(found.table, found.done), next_to_paper(found.timed), pending(found)
    first = opening(found, known, sum(each.state == NEVER for each in todo))
    figures = [*charts(found.table, wanted.figures), *matrices(found.table, wanted.figures)]
    html = page(
        found.table,
        figures,
        opening=first,
        headline=headline(first.gain, first.runs),
        methods=explained(found.table.method),
        scored=", ".join(sorted({*found.table.scored} - {""})),
        cost=speed.spoken(sum(first.seconds.values())),
        pivots=pivots,
        claims=claims,
        timed=timed,
        pending=todo,
        most_pending=MOST_PENDING,
        left_out=_left_out(found, figures, wanted.figures),
    )
    _tables(found, to)
    _figures(figures, to / FIGURES)
    results.write_text(to / "report.md", markdown(first, summary, pivots, claims, timed, todo))
    results.write_text(to / "report.tex", latex(pivots))
    results.write_text(to / "report.html", html)
    return Written(first, pivots, todo)


def names(given: Any) -> list[str]:
    """Take one field or several."""
    return [given] if isinstance(given, str) else list(given)


def _tables(found: Gathered, to: Path) -> None:
    results.write_text(to / "runs.csv", found.table.to_csv(index=False))
    buffer = io.BytesIO()
    found.table.to_parquet(buffer, index=False)
    results.write_bytes(to / "runs.parquet", buffer.getvalue())


def _figures(figures: list[Chart], to: Path) -> None:
    """Write the figures, and remove those of an earlier report that this one no longer has."""
    files = {f"{each.name}.svg": each.svg.encode() for each in figures}
    files |= {f"{each.name}.png": each.png for each in figures}
    for name, content in files.items():
        results.write_bytes(to / name, content)
    for path in to.glob("*-*.[sp][vn]g"):
        if path.name.partition("-")[0] in TITLES and path.name not in files:
            path.unlink()


def _left_out(found: Gathered, figures: list[Chart], most: int) -> str:
    """Say so where there are more figures than were asked for."""
    full = [kind for kind, count in Counter(each.kind for each in figures).items() if count == most]
    places = len(found.table.groupby(PLACE))
    if not full or (places <= most and full == ["confusion"]):
        return ""
    return f"At most {counted(most, 'figure')} of a kind are drawn: report.figures=N draws more."
