"""A sweep on a real Slurm ends with what it would have given on one machine, whatever befalls its jobs."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from er.results import Result
from tests.cluster.conftest import ON_SLURM, Sweep, ended
from tests.cluster.slurm import Slurm, until

pytestmark = pytest.mark.cluster

Make = Callable[..., Sweep]

LONG = ["optim.epochs=30", "trainer.checkpoint_s=0", "method=reduced"]
"""Runs that save every step, and take long enough to be interrupted."""

PATIENCE = 600


def metrics(results: dict[str, Result]) -> dict[str, dict[str, float]]:
    return {run_id: result.metrics for run_id, result in results.items()}


def test_twelve_runs_give_what_they_give_here_and_build_each_space_once(sweep: Make) -> None:
    twelve = ["optim.epochs=2", "method=reduced,reduced_adapters", "cut=1,2", "seed=0,1,2"]
    there, here = sweep("there", *twelve), sweep("here", *twelve)

    there.done(*ON_SLURM)
    here.done("hydra/launcher=basic")

    results = there.results()
    assert len(results) == 12
    assert metrics(results) == metrics(here.results())
    computed: dict[str, int] = defaultdict(int)
    needed: dict[str, int] = {}
    for result in results.values():
        assert result.cache is not None
        computed[result.cache["space"]] += result.cache["misses"]
        needed[result.cache["space"]] = result.cache["hits"] + result.cache["misses"]
    assert len(needed) == 2
    assert computed == needed


def test_runs_of_a_node_that_dies_are_requeued_and_go_on(sweep: Make, cluster: Slurm) -> None:
    four = [*LONG, "seed=0,1,2,3"]
    there, here = sweep("there", *four), sweep("here", *four)

    process = there.issue(*ON_SLURM)
    until(lambda: len(cluster.running("n2")) == 1 and len(there.files("last.ckpt")) >= 2, PATIENCE, "both nodes train")
    (job,) = cluster.running("n2")
    cluster.kill_node("n2")
    try:
        said, code = ended(process)
    finally:
        cluster.start_node("n2")

    assert code == 0, said
    assert begun(there, job) == 2
    here.done("hydra/launcher=basic")
    assert metrics(there.results()) == metrics(here.results())


def test_a_run_whose_time_is_up_goes_on_in_its_directory_and_its_wandb_run(sweep: Make, cluster: Slurm) -> None:
    one = ["optim.epochs=30", "trainer.checkpoint_s=1e9", "trainer.progress=true", "method=reduced", "logger=wandb"]
    there, here = sweep("there", *one), sweep("here", *one)

    process = there.issue(*ON_SLURM)
    until(lambda: any("train:" in path.read_text() for path in there.files("*_log.out")), PATIENCE, "it trains")
    (job,) = cluster.running("n1") + cluster.running("n2")
    cluster.ask("scancel", "--signal=USR2", job)
    said, code = ended(process)

    assert code == 0, said
    assert begun(there, job) == 2
    assert "going on from" in log(there, job).read_text()
    (run_id,) = there.results()
    assert len(names := [path.parent.name for path in there.files("*.wandb")]) == 2
    assert {name.rpartition("-")[2] for name in names} == {run_id}
    here.done("hydra/launcher=basic")
    assert metrics(there.results()) == metrics(here.results())


def test_what_was_cancelled_is_named_and_done_when_issued_again(sweep: Make, cluster: Slurm) -> None:
    four = sweep("there", "optim.epochs=1", "method=reduced", "seed=0,1,2,3")

    process = four.issue(*ON_SLURM)
    until(lambda: bool(cluster.running("n1") and cluster.running("n2")), PATIENCE, "two of them run")
    (job,) = cluster.running("n2")
    cluster.ask("scancel", job, f"{job.split('_')[0]}_3")
    said, code = ended(process)
    assert code == 1
    assert "(CANCELLED)" in said and "cancelled before it began" in said, said
    assert "2 failed" in said
    before = {path: path.stat().st_mtime_ns for path in four.files("result.json")}
    assert len(before) == 2

    four.done(*ON_SLURM)

    assert len(four.results()) == 4
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_slurm_refuses_is_said_in_its_words(sweep: Make) -> None:
    said, code = ended(sweep("there", "seed=0,1").issue(*ON_SLURM, "hydra.launcher.partition=nowhere"))

    assert code == 1
    assert "invalid partition specified: nowhere" in said
    assert "Traceback" not in said


def test_no_accounting_is_needed(cluster: Slurm) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        cluster.ask("sacct")


def log(sweep: Sweep, job: str) -> Path:
    return sweep.folder / "runs" / ".submitit" / f"{job}_0_log.out"


def begun(sweep: Sweep, job: str) -> int:
    """Return how often a job was started."""
    return log(sweep, job).read_text().count("Starting with")
