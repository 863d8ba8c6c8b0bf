"""`er report`: everything under a runs folder as tables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from er.config import CONF, settings

HEADINGS = {
    "build_s": "build s",
    "read_s": "read s",
    "train_s": "train s",
    "evaluate_s": "evaluate s",
    "macro_f1": "macro-F1",
    "warm": "warm %",
    "cold": "cold %",
    "break_even": "break-even epochs",
}

NOTE = """\
Accuracy and macro-F1 in percent, on test. warm, cold: speedup of a training step over finetune on the same
hardware, (t_finetune / t - 1) x 100, with the cache there and with building it counted.
"""


@hydra.main(config_path=str(CONF), config_name="report", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Print the summary; write it, and every run, beside the runs."""
    folder = Path(settings(cfg).paths.runs).expanduser()
    from er import results, tables

    runs = tables.runs(folder)
    summary = tables.summary(runs).rename(columns=HEADINGS)
    shown: dict[str, Any] = {"index": False, "floatfmt": ".1f", "missingval": "", "disable_numparse": [3]}
    results.write_text(folder / "runs.csv", runs.to_csv(index=False))
    results.write_text(folder / "report.md", summary.to_markdown(tablefmt="github", **shown) + f"\n\n{NOTE}")
    sys.stdout.write(summary.to_markdown(tablefmt="simple", **shown) + f"\n\n{NOTE}")
    sys.stdout.write(f"{len(runs)} runs in {folder}; this table: {folder}/report.md; every run: {folder}/runs.csv\n")
