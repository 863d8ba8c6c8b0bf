"""What it saves to train several heads from one read: separate commands, one sweep, and one sweep that reads together.

All train the same heads (learning rates) on MiniLM, cut at layer 3 of 6 (probes: at 6), from activations that are
there; all is counted, from the start of the first process to the end of the last. `bound` is what would be left of
separate commands if nothing but training and evaluating the heads took any time: no reading in common can save more.
`pytest -m slow -s -n0 tests/studies/test_together_speed.py` prints the tables; ER_HEADS says how many heads (8).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tabulate import tabulate

from er.results import read

pytestmark = pytest.mark.slow

HEADS = int(os.environ.get("ER_HEADS", "8"))
METHODS = ("probe", "reduced_adapters", "reduced")
SIZES = {"small": ["task.limit=256", "optim.epochs=2"], "large": ["optim.epochs=4"]}
RATES = [f"{1e-4 * (1 + i)}" for i in range(HEADS)]


def er(*arguments: str) -> float:
    """Run a command and return how long that took."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "er", *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def spent(runs: Path) -> dict[str, float]:
    """Add up the seconds of all runs, by phase."""
    results = [read(path) for path in runs.rglob("result.json")]
    assert len(results) == HEADS
    return {phase: sum(each.seconds[phase] for each in results) for phase in ("read", "train", "evaluate")}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", SIZES)
def test_heads_from_one_read_against_separate_commands(tmp_path: Path, size: str, method: str) -> None:
    here = [f"method={method}", "cut=3", *SIZES[size], "optim.patience=null", "trainer.progress=false"]
    common = [*here, f"paths.cache={os.environ.get('ER_CACHE', tmp_path / 'cache')}"]
    er("cache", *common)
    places = {arm: tmp_path / arm for arm in ("separate", "sweep", "together")}
    separate, sweep, together = (["train", *common, f"paths.runs={place}"] for place in places.values())
    rates = f"optim.lr={','.join(RATES)}"
    took = {
        "separate": sum(er(*separate, f"optim.lr={rate}") for rate in RATES),
        "sweep": er(*sweep, "-m", rates),
        "together": er(*together, "-m", rates, f"together={HEADS}"),
    }
    phases = {arm: spent(place) for arm, place in places.items()}
    rows: list[list[str | float]] = [
        [arm, seconds, *phases[arm].values(), seconds - sum(phases[arm].values()), took["separate"] / seconds]
        for arm, seconds in took.items()
    ]
    computing = phases["together"]["train"] + phases["together"]["evaluate"]
    rows.append(["bound", computing, "", "", "", "", took["separate"] / computing])
    head = ["arm", "seconds", "read", "train", "evaluate", "rest", "separate / arm"]
    sys.stdout.write(f"\n{HEADS} heads, {method}, {size}: {' '.join(SIZES[size])}\n")
    sys.stdout.write(f"{tabulate(rows, head, floatfmt='.2f')}\n")
    assert took["together"] < took["separate"]
