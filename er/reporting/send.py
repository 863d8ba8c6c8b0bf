"""The report as a W&B run: the table of all runs, the pivots, the page and the figures, for whoever reads it there."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any

import pandas as pd

from er import mirror
from er.config import Logger
from er.errors import UserError
from er.reporting.gather import Gathered
from er.reporting.pivots import Pivot
from er.reporting.write import FIGURES, FILES, Written

PLACED = ("project", "entity", "group")
"""What W&B takes of the logger's options; the others are Lightning's."""


def check(logger: Logger) -> None:
    """Refuse a logger that takes no reports, before any work."""
    if logger.name not in ("none", "wandb"):
        raise UserError(f"logger={logger.name}: a report goes to logger=wandb, or nowhere besides its files.")


def send(logger: Logger, found: Gathered, written: Written, to: Path) -> None:
    """Send a report that has been written; a later report of the same folder goes on in the same W&B run."""
    import wandb

    folder = found.folder.resolve()
    here = hashlib.blake2b(f"{platform.node()}:{folder}".encode(), digest_size=6).hexdigest()
    options: dict[str, Any] = {name: logger.options.get(name) for name in PLACED}
    options |= {"mode": "offline"} if logger.options.get("offline") else {}
    config = {"folder": str(folder), "run_ids": found.table.run_id.tolist()}
    with mirror.ended():
        run = mirror.started(
            lambda: wandb.init(
                id=f"report-{here}",
                name=f"report of {folder.name}",
                job_type="report",
                resume="allow",
                dir=to,
                config=config,
                **options,
            )
        )
        run.config.update(config, allow_val_change=True)
        run.log(_shown(found.table, written.pivots, to))
        run.summary.update(_summary(written))
        run.log_artifact(_artifact(f"report-{here}", to))


def _shown(table: pd.DataFrame, pivots: list[Pivot], to: Path) -> dict[str, Any]:
    import wandb

    shown: dict[str, Any] = {"runs": wandb.Table(dataframe=table, allow_mixed_types=True)}
    for pivot in pivots:
        rows: list[Any] = [[*names, *(cell.text if cell else None for cell in cells)] for names, cells in pivot.rows]
        shown[f"pivots/{pivot.title}"] = wandb.Table([*pivot.heads, *pivot.columns], rows, allow_mixed_types=True)
    shown["page"] = wandb.Html((to / "report.html").read_text(encoding="utf-8"), inject=False)
    for path in sorted((to / FIGURES).glob("*.png")):
        shown[f"figures/{path.stem}"] = wandb.Image(str(path))
    return shown


def _summary(written: Written) -> dict[str, Any]:
    opening, gain = written.opening, written.opening.gain
    found: dict[str, Any] = {
        "seconds": opening.seconds,
        "bytes": opening.megabytes * 1e6,
        "pending": len(written.pending),
        "doubts": [each.title for each in opening.findings if not each.good],
    }
    if gain is not None:
        found["speedup"] = {"setting": gain.setting, "warm": gain.warm, "cold": gain.cold}
    return mirror.flat(found)


def _artifact(name: str, to: Path) -> Any:
    import wandb

    artifact = wandb.Artifact(name, type="report")
    for file in FILES:
        artifact.add_file(str(to / file))
    for path in sorted((to / FIGURES).glob("*.*")):
        artifact.add_file(str(path), name=f"{FIGURES}/{path.name}")
    return artifact
