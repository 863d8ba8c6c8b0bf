"""The report as Markdown and as LaTeX."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pandas as pd

from er.reporting.claims import Bench, Beside
from er.reporting.findings import Opening, counted
from er.reporting.pending import Pending
from er.reporting.pivots import Cell, Pivot

BASES = ("finetune", "frozen")
"""The arms over which a bench's speedups are shown."""

TIMED_NOTE = (
    "Speedups with the cache there, (t / t_recycled - 1) x 100, medians over batches that all arms did in turn; "
    "build s: seconds to build the cache for 1,000 inputs."
)

WRITTEN = {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "±": r"$\pm$"}

ESCAPED = str.maketrans({letter: f"\\{letter}" for letter in "&%$#_{}"} | WRITTEN)
"""What LaTeX would take for something else."""


def markdown(
    opening: Opening,
    summary: str,
    pivots: list[Pivot],
    claims: list[Beside],
    timed: list[Bench],
    pending: list[Pending],
) -> str:
    """Write the report as Markdown."""
    parts = ["# Report", *_opened(opening), "## Every setting", summary]
    for each in pivots:
        parts += [f"## {each.title}", _cells(each), each.notes]
    if claims:
        table = pd.DataFrame([asdict(claim) for claim in claims]).to_markdown(index=False, floatfmt=".1f")
        parts += ["## Next to the paper", table]
    if timed:
        table = pd.DataFrame([_timed(each) for each in timed]).to_markdown(index=False, floatfmt=".1f", missingval="")
        parts += ["## Timed by er bench", table, TIMED_NOTE]
    if pending:
        commands = "\n".join(each.command for each in pending)
        parts += ["## Still to be run", counted(len(pending), "run") + ":", f"```\n{commands}\n```"]
    return "\n\n".join(part for part in parts if part) + "\n"


def _timed(bench: Bench) -> dict[str, Any]:
    each = bench.timed
    return {
        "": each.mode,
        **{name: getattr(each, name) for name in ("model", "task", "method")},
        "cut": f"{each.k} of {each.depth}",
        "kept": each.kept,
        **{f"over {base} %": each.over.get(base) for base in BASES},
        "build s": each.build,
        "hardware": each.hardware,
        "paper %": bench.stated,
        "the paper's conditions": bench.conditions,
    }


def _opened(opening: Opening) -> list[str]:
    hours = sum(opening.seconds.values()) / 3600
    ran = f"{opening.runs}: {opening.ran}. {'; '.join(opening.hardware)}. {opening.when}. {hours:.2f} hours."
    return [
        ran,
        "\n".join(f"- {'' if each.good else '**Doubt:** '}{each.title}: {each.says}" for each in opening.findings),
    ]


def _cells(pivot: Pivot) -> str:
    lines = [[*head, *map(_marked, cells)] for head, cells in pivot.rows]
    frame = pd.DataFrame(lines, columns=[*pivot.heads, *pivot.columns])
    return frame.to_markdown(index=False, disable_numparse=True)


def _marked(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return (f"**{cell.text}**" if cell.best else cell.text) + {"+": "⁺", "-": "⁻", "": ""}[cell.sign]


def latex(pivots: list[Pivot]) -> str:
    """Write the pivots as tables that need the package booktabs, one after the other."""
    return "% \\usepackage{booktabs}\n" + "\n".join(_latex(each) for each in pivots)


def _latex(pivot: Pivot) -> str:
    head = [*pivot.heads, *pivot.columns]
    lines = [_row(head), r"\midrule"]
    for names, cells in pivot.rows:
        lines.append(" & ".join([*(name.translate(ESCAPED) for name in names), *map(_typeset, cells)]) + r" \\")
    body = "\n".join([r"\toprule", *lines, r"\bottomrule"])
    columns = "l" * len(pivot.heads) + "r" * len(pivot.columns)
    notes = "\n".join(f"% {line}" for line in [pivot.title, pivot.notes] if line)
    return f"{notes}\n\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}\n"


def _row(names: list[str]) -> str:
    return " & ".join(name.translate(ESCAPED) for name in names) + r" \\"


def _typeset(cell: Cell | None) -> str:
    if cell is None:
        return "--"
    text = cell.text.translate(ESCAPED)
    return (rf"\textbf{{{text}}}" if cell.best else text) + (f"$^{{{cell.sign}}}$" if cell.sign else "")
