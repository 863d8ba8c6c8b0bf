"""`er report`: everything under a runs folder as tables, figures and one page."""

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

    from er.reporting.gather import Gathered

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
    """Print the summary and write the report; or print only the commands of what is still to be run."""
    config = settings(cfg)
    from er.reporting.gather import finished, gather
    from er.reporting.send import check, send

    check(config.logger)
    found = gather(Path(config.paths.runs).expanduser())
    if config.report.pending:
        _print_pending(found)
        return
    from er import tables
    from er.reporting.write import write

    said, summary = tables.common(tables.summary(finished(found).table))
    summary = summary.rename(columns=HEADINGS).astype(object).where(summary.notna().to_numpy(), "")
    to = Path(config.report.to).expanduser() if config.report.to else found.folder
    written = write(found, config.report, text(said, summary, "github"), to)
    sys.stdout.write(text(said, summary, "simple"))
    left = f"; {len(written.pending)} still to be run (er report report.pending=true)" if written.pending else ""
    out = f"; {len(found.skipped)} files left out" if found.skipped else ""
    sys.stdout.write(f"{len(found.done)} runs in {found.folder}{left}{out}; the report: {to}/report.html\n")
    if config.logger.name == "wandb":
        send(config.logger, found, written, to)


def _print_pending(found: Gathered) -> None:
    from er.reporting.pending import pending

    sys.stdout.writelines(f"{each.command}\n" for each in pending(found))


def text(said: str, summary: pd.DataFrame, style: str) -> str:
    """Write the summary as text: what all rows share, the rows, and what the columns mean."""
    rows = summary.to_markdown(tablefmt=style, index=False, floatfmt=".1f", disable_numparse=False)
    return f"{said}\n\n{rows}\n\n{NOTE}"
