"""What a sweep costs before its first run begins: real commands, on real tasks, timed from start to end.

`pytest -m slow -s -n0 tests/studies/test_sweep_speed.py` prints seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from er.results import NAME
from er.studies import grid
from er.studies.study import Shelf, survey

pytestmark = pytest.mark.slow


def er(*arguments: str) -> tuple[str, float]:
    """Run a command; return what it printed, and how long that took."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "er", *arguments], check=True, capture_output=True, text=True)
    return done.stdout, time.perf_counter() - start


def test_two_hundred_done_runs_are_soon_found_done(real_data: Path, tmp_path: Path) -> None:
    one = ["task=rte", "method=probe", "task.limit=64", "optim.epochs=1", "trainer.progress=false"]
    one += [f"paths.{name}={tmp_path / name}" for name in ("cache", "runs")] + [f"paths.data={real_data}"]
    er("train", *one)
    (result,) = tmp_path.rglob(NAME)
    asked = [*one, "seed=range(200)"]
    for run in survey(grid.points("train", asked), Shelf(), progress=False).runs:  # all as if they were done
        run.directory.mkdir(parents=True, exist_ok=True)
        (run.directory / NAME).write_bytes(result.read_bytes())

    said, seconds = er("train", *asked, "-m")

    assert "200 points, 200 runs: 200 done, 0 to do" in said
    assert "Sweep: 0 done, 200 skipped (done before), 0 failed." in said
    sys.stdout.write(f"\n200 done runs, issued again: {seconds:.1f} s (wished for: 90)\n")
    assert seconds < 90


def test_a_thousand_points_are_soon_planned(real_data: Path, tmp_path: Path) -> None:
    asked = ["experiment=small/main_table", "seed=range(24)", "trainer.progress=false"]
    asked += [f"paths.{name}={tmp_path / name}" for name in ("cache", "runs")] + [f"paths.data={real_data}"]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}

    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "er", "train", *asked], stdout=subprocess.PIPE, env=env) as sweep:
        assert sweep.stdout
        said = ""
        for line in sweep.stdout:
            said += line.decode()
            if line.startswith(b"To be stored"):  # after which runs are launched
                break
        seconds = time.perf_counter() - start
        sweep.terminate()

    assert "1008 points, 1008 runs: 0 done, 1008 to do" in said
    sys.stdout.write(f"\n1,008 points, composed and planned: {seconds:.1f} s (wished for: 120)\n")
    assert seconds < 120
