"""A report at W&B holds what its files hold: table, pivots, page and figures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from er.config import Logger
from er.errors import UserError
from er.reporting.gather import gather
from er.reporting.send import check
from er.reporting.write import FILES
from tests.offline import sent


def test_a_report_is_one_run_with_the_page_and_the_figures_as_artifact(study: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "er", "report", f"paths.runs={study}", "report.to=out", "logger=wandb"]
    done = subprocess.run([*command, "logger.options.group=g"], cwd=tmp_path, env=os.environ, capture_output=True)
    assert done.returncode == 0, done.stderr

    (file,) = (tmp_path / "out" / "wandb").glob("offline-run-*/run-report-*.wandb")
    found, figures = sent(file), sorted(path.name for path in (tmp_path / "out/figures").iterdir())
    assert (found.group, found.exit_code) == ("g", 0)
    assert sorted(found.artifacts["report"]) == sorted([*FILES, *(f"figures/{name}" for name in figures)])
    assert found.config["run_ids"] == gather(study).table.run_id.tolist()
    assert found.summary["speedup/warm"] == pytest.approx((40 / 15 - 1) * 100)
    assert found.summary["runs/nrows"] == 6
    assert {"page/path", "pivots/Score/path", "pivots/Cold speedup, %/path"} <= found.summary.keys()


def test_a_logger_that_takes_no_reports_is_refused() -> None:
    with pytest.raises(UserError, match="logger=wandb, or nowhere"):
        check(Logger("csv"))
