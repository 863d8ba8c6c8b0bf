"""One Slurm for all tests of this folder, and sweeps that are issued as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from er.results import Result, read
from er.testing import tiny_checkpoint
from tests.cluster.slurm import Slurm, missing, slurm

ROOT = Path(__file__).resolve().parents[2]

SMALL = ["model=hf", "task=classification", "trainer=cpu", "trainer.progress=false", "optim.batch_size=8"]

ON_SLURM = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2"]


class Sweep:
    """A sweep of small runs, and what it leaves."""

    def __init__(self, folder: Path, env: dict[str, str], overrides: list[str]) -> None:
        self.folder, self.env = folder, env
        paths = [f"paths.runs={folder}/runs", f"paths.cache={folder}/cache"]
        self.command = [sys.executable, "-m", "er", "train", "-m", *SMALL, *paths, *overrides]

    def issue(self, *launcher: str) -> subprocess.Popen[str]:
        """Begin the sweep."""
        return subprocess.Popen(
            [*self.command, *launcher],
            cwd=ROOT,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def done(self, *launcher: str) -> str:
        """Do the sweep, and return what it says."""
        said, code = ended(self.issue(*launcher))
        assert code == 0, said
        return said

    def files(self, name: str) -> list[Path]:
        """Return the files of this name that its runs have left."""
        return sorted((self.folder / "runs").rglob(name))

    def results(self) -> dict[str, Result]:
        """Return what is done, by run id."""
        return {result.run_id: result for result in map(read, self.files("result.json"))}


def ended(process: subprocess.Popen[str]) -> tuple[str, int]:
    """Return what a command has said, and its exit code."""
    said, _ = process.communicate(timeout=1800)
    return said, process.returncode


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if why := missing():
        pytest.skip(why)
    with slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture
def sweep(cluster: Slurm, tmp_path: Path, words: Path) -> Callable[..., Sweep]:
    """Return what makes a sweep, in a folder of its own, of runs of a tiny encoder on a tiny task."""
    checkpoint = tiny_checkpoint(tmp_path / "bert", layers=4)
    env = cluster.env | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
    env["PYTHONPATH"] = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"

    def make(name: str, *overrides: str) -> Sweep:
        return Sweep(tmp_path / name, env, [f"model.path={checkpoint}", f"task.path={words}", *overrides])

    return make
