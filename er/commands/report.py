"""`er report`: everything under a runs folder as tables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from er.checks import settings
from er.config import CONF

if TYPE_CHECKING:
    import pandas as pd

HEADINGS = {
    "build_s": "build s",
    "read_s": "read s",
    "train_s": "train s",
    "evaluate_s": "eval s",
    "macro_f1": "macro-F1",
    "entity_f1": "entity F1",
    "em": "EM",
    "f1": "answer F1",
    "warm": "warm %",
    "cold": "cold %",
    "break_even": "even after",
}

NOTE = """\
Scores in percent, on test. warm, cold: speedup of a training step over finetune on the same
hardware, (t_finetune / t - 1) x 100, with the cache there and with building it counted; even after: the
epochs that pay for the building.
"""


@hydra.main(config_path=str(CONF), config_name="report", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Print the summary; write it, and every run, beside the runs."""
    folder = Path(settings(cfg).paths.runs).expanduser()
    from er import results, tables

    runs = tables.runs(folder)
    said, summary = tables.common(tables.summary(runs))
    summary = summary.rename(columns=HEADINGS).astype(object).where(summary.notna().to_numpy(), "")
    results.write_text(folder / "runs.csv", runs.to_csv(index=False))
    results.write_text(folder / "report.md", text(said, summary, "github"))
    sys.stdout.write(text(said, summary, "simple"))
    sys.stdout.write(f"{len(runs)} runs in {folder}; this table: {folder}/report.md; every run: {folder}/runs.csv\n")


def text(said: str, summary: pd.DataFrame, style: str) -> str:
    """Write the summary as text: what all rows share, the rows, and what the columns mean."""
    rows = summary.to_markdown(tablefmt=style, index=False, floatfmt=".1f", disable_numparse=False)
    return f"{said}\n\n{rows}\n\n{NOTE}"
