"""A sweep looks at all its points first, does what is missing in an order that shares, and tells what came of it."""

from __future__ import annotations

import json
import logging
import shlex
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hydra import compose
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import open_dict
from pytorch_lightning import seed_everything

from er import results
from er.checks import settings
from er.commands.train import train
from er.config import Config
from er.errors import UserError
from er.reporting.gather import gather
from er.reporting.pending import pending
from er.results import Result, read
from er.studies import grid
from er.studies.order import ordered, space
from er.studies.study import Point, Shelf, placed, survey
from er.studies.sweep import LOST, overrides_of, shared_out, sweep
from er.training.attempt import attempt
from er.training.run import fit, run

Small = Callable[..., Config]


class Sweeping:
    """Sweeps of a tiny encoder, their runs done in this process."""

    def __init__(self, common: list[str]) -> None:
        self.common = common
        self.batches: list[list[str]] = []
        """The runs of each launch, by what they do not share with others."""
        self.groups: list[str | None] = []
        """For each job of the last launch, the runs that it does together."""
        self.dies_after: int | None = None
        """The runs that the next launch does before it dies."""
        self.dies_by: type[BaseException] = ChildProcessError
        self.begun = 0
        """Of the runs that it does not do, those that it has begun by then."""

    def points(self, *overrides: str) -> list[list[str]]:
        return grid.points("train", [*self.common, *overrides])

    def __call__(self, *overrides: str, batch: int = 100, skip_invalid: bool = False, together: int = 1) -> int:
        self.batches = []
        with grid.composing():
            return sweep(self.points(*overrides), self.launch, batch, skip_invalid, progress=False, together=together)

    def launch(self, jobs: Sequence[Sequence[str]], number: int) -> list[JobReturn]:
        self.groups = [settings(grid.composed("train", list(job))).points for job in jobs]
        self.batches.append([" ".join(word for word in job if word not in self.common) for job in jobs])
        alive, self.dies_after = self.dies_after, None
        returned = [_job(list(job)) for job in jobs[:alive]]
        if alive is not None:
            for job in jobs[alive : alive + self.begun]:
                place = placed(settings(grid.composed("train", list(job))), Shelf()).directory
                place.mkdir(parents=True, exist_ok=True)
                (place / results.LOG).touch()
            raise self.dies_by("a worker was killed")
        return returned


def _job(overrides: list[str]) -> JobReturn:
    try:
        train(settings(grid.composed("train", overrides)))
    except Exception as error:
        return JobReturn(status=JobStatus.FAILED, _return_value=error)
    return JobReturn(status=JobStatus.COMPLETED)


@pytest.fixture
def sweeping(words: Path, checkpoint: Path, tmp_path: Path) -> Sweeping:
    model = ["model=hf", f"model.path={checkpoint}", "task=classification", f"task.path={words}"]
    paths = [f"paths.cache={tmp_path}/cache", f"paths.runs={tmp_path}/runs"]
    return Sweeping([*model, *paths, "trainer=cpu", "trainer.progress=False", "optim.epochs=1", "task.limit=16"])


@pytest.fixture
def fit_fails_for_seed_1(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def seeded(seed: int, verbose: bool) -> None:
        seen.append(seed_everything(seed, verbose=verbose))

    monkeypatch.setattr("er.training.run.seed_everything", seeded)
    monkeypatch.setattr("er.training.run.fit", lambda *given: 1 / 0 if seen[-1] == 1 else fit(*given))


def test_nothing_starts_while_a_point_is_impossible(
    sweeping: Sweeping, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["method=reduced", "cut=2,9", "seed=0,1"]

    assert sweeping(*asked) == 2
    said = capsys.readouterr().out
    assert sweeping.batches == [] and not (tmp_path / "runs").exists()
    assert said.count("this encoder has 4 layers") == 1
    assert "cut=9 seed=0" in said and "cut=9 seed=1" in said and "cut=2" not in said

    assert sweeping(*asked, skip_invalid=True) == 0
    assert sweeping.batches == [["method=reduced cut=2 seed=0", "method=reduced cut=2 seed=1"]]
    assert "2 done, 0 skipped (done before), 2 points left out" in capsys.readouterr().out


def test_what_does_not_compose_is_impossible_too(sweeping: Sweeping, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweeping("method=probe", "seed=0,x") == 2
    assert "'x' of type 'str' could not be converted to Integer" in capsys.readouterr().out
    assert sweeping("method=probe", "seed=0,1", "report.figures=2") == 2
    assert "does not read this" in capsys.readouterr().out and sweeping.batches == []


def test_a_killed_sweep_leaves_what_it_has_not_begun(sweeping: Sweeping, tmp_path: Path) -> None:
    sweeping.dies_after, sweeping.dies_by = 1, KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        sweeping("method=probe", "seed=0,1,2")

    left = pending(gather(tmp_path / "runs"))
    assert [(each.seed, each.state) for each in left] == [("1", "never started"), ("2", "never started")]
    for each in left:
        overrides = shlex.split(each.command)[2:]
        with grid.composing():
            run(settings(grid.composed("train", overrides)))
    assert pending(gather(tmp_path / "runs")) == []

    assert sweeping("method=probe", "seed=0,1,2") == 0
    assert sweeping.batches == []


def test_only_what_is_missing_is_launched_each_run_once(sweeping: Sweeping, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweeping("method=finetune", "cut=1,2,3", "seed=0") == 0  # finetune knows no cut: one run
    assert sweeping.batches == [["method=finetune cut=1 seed=0"]]

    assert sweeping("method=finetune", "cut=1,2,3", "seed=0,1") == 0
    assert sweeping.batches == [["method=finetune cut=1 seed=1"]]
    assert "6 points, 2 runs: 1 done, 1 to do" in capsys.readouterr().out

    assert sweeping("method=finetune", "cut=1,2,3", "seed=0,1") == 0
    assert sweeping.batches == []
    assert capsys.readouterr().out.splitlines()[-1] == "Sweep: 0 done, 2 skipped (done before), 0 failed."


@pytest.mark.usefixtures("fit_fails_for_seed_1")
def test_a_failure_stops_no_other_and_is_told_last(
    sweeping: Sweeping, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert sweeping("method=reduced", "cut=2", "seed=0,1,2") == 1

    (left,) = (tmp_path / "runs").rglob("failed.json")
    said = capsys.readouterr().out
    assert said.splitlines()[-4:] == [
        "Sweep: 2 done, 0 skipped (done before), 1 failed:",
        "seed=1",
        "  division by zero",
        f"  {left}",
    ]
    failed = json.loads(left.read_text())
    assert failed["error"] == "ZeroDivisionError: division by zero"
    assert failed["config"]["seed"] == 1 and "1 / 0" in failed["traceback"]
    assert "cut at layer 2 of 4" in Path(failed["log"]).read_text()
    assert len(list((tmp_path / "runs").rglob("result.json"))) == 2


def test_batches_are_no_larger_than_asked(sweeping: Sweeping) -> None:
    assert sweeping("method=probe", "seed=0,1,2", batch=2) == 0
    assert [len(batch) for batch in sweeping.batches] == [2, 1]


def test_a_launcher_that_dies_is_used_again_for_the_rest(
    sweeping: Sweeping, capsys: pytest.CaptureFixture[str]
) -> None:
    sweeping.dies_after = 1
    assert sweeping("method=probe", "seed=0,1,2") == 0
    assert [len(batch) for batch in sweeping.batches] == [3, 2]

    sweeping.dies_after = 0
    assert sweeping("method=probe", "seed=3,4") == 1
    assert [len(batch) for batch in sweeping.batches] == [2]
    assert "0 done, 0 skipped (done before), 2 failed" in capsys.readouterr().out


def test_a_worker_that_dies_takes_no_other_run_with_it(sweeping: Sweeping) -> None:
    sweeping.dies_after, sweeping.begun = 0, 2
    assert sweeping("method=probe", "seed=0,1,2") == 0
    assert [len(batch) for batch in sweeping.batches] == [3, 1, 1, 1]


def test_a_run_that_dies_each_time_leaves_its_failure(
    sweeping: Sweeping, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweeping.dies_after, sweeping.begun = 0, 1
    assert sweeping("method=probe", "seed=0") == 1

    (left,) = (tmp_path / "runs").rglob(results.FAILED)
    failed = json.loads(left.read_text())
    assert failed["error"] == LOST and failed["command"].endswith("seed=0") and failed["config"]["seed"] == 0
    assert f"seed=0\n  {LOST}\n  {left}" in capsys.readouterr().out
    assert sweeping("method=probe", "seed=0") == 0 and not left.exists()


def test_a_launcher_that_takes_no_jobs_says_why(sweeping: Sweeping, capsys: pytest.CaptureFixture[str]) -> None:
    sweeping.dies_after, sweeping.dies_by = 0, UserError
    assert sweeping("method=probe", "seed=0,1") == 1
    assert "seed=0\n  a worker was killed\nseed=1\n  a worker was killed" in capsys.readouterr().out


def test_jobs_take_their_runs_in_one_order_however_they_are_listed(sweeping: Sweeping) -> None:
    with grid.composing():
        runs = [
            survey(sweeping.points("method=probe", seeds), Shelf(), False).runs
            for seeds in ("seed=0,1,2", "seed=2,1,0")
        ]
        one, other = (shared_out(each, together=3) for each in runs)

    assert [[run.directory for run in job] for job in one] == [[run.directory for run in job] for job in other]


def test_runs_that_share_follow_one_another(sweeping: Sweeping, words: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in words.iterdir():
        (other / path.name).write_text(path.read_text().replace("is here", "was there"))
    with grid.composing():
        asked = ["method=reduced,probe,finetune", "cut=1,2", "cache.dtype=float32,int8", "seed=0,1"]
        points = sweeping.points(*asked, f"task.path={words},{other}", "optim.epochs=2,1")
        shelf = Shelf()
        runs = survey(points, shelf, progress=False).runs
        order = ordered(runs, shelf)

    assert sorted(order, key=lambda run: str(run.directory)) == sorted(runs, key=lambda run: str(run.directory))
    assert order == ordered(runs, shelf)
    assert together([space(run) for run in order])
    assert together([(space(run), run.config.task.path) for run in order])
    reduced = [run for run in order if run.config.method.name == "reduced"]
    assert together([(space(run), run.config.task.path, run.config.optim.epochs) for run in reduced])
    assert reduced[0].config.optim.epochs == 1


def together(keys: list[object]) -> bool:
    """Whether what is equal is in one piece."""
    return sum(one != other for one, other in pairwise(keys)) == len(set(keys)) - 1


def test_a_run_that_another_does_is_waited_for_and_then_found(small: Small) -> None:
    config = small("method=probe", "optim.epochs=1")
    directory = placed(config, Shelf()).directory
    done: list[Result] = []
    with attempt(config, directory):
        second = threading.Thread(target=lambda: done.append(run(config)))
        second.start()
        second.join(0.5)
        assert second.is_alive() and not done
    second.join()

    assert len(done) == 1
    assert not (directory / "run.lock").exists() and not (directory / "log.txt").exists()


def test_a_launcher_whose_plugin_is_missing_is_named() -> None:
    with pytest.raises(HydraException, match="pip install hydra-ray-launcher"):
        sweeper({"_target_": "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher"})


def test_joblib_is_bounded() -> None:
    launcher = {"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"}

    assert 1 <= sweeper(launcher | {"n_jobs": -1}).launcher.joblib["n_jobs"] <= 4
    assert sweeper(launcher | {"n_jobs": 7}).launcher.joblib["n_jobs"] == 7


def sweeper(launcher: dict[str, Any]) -> Any:
    """Return what Hydra sets up for `er train -m` with a launcher."""
    with grid.composing():
        said = compose("train", return_hydra_config=True)
        with open_dict(said):
            said.hydra.launcher = launcher
        context = HydraContext(GlobalHydra.instance().config_loader(), Callbacks())
        return Plugins.instance().instantiate_sweeper(
            hydra_context=context, task_function=lambda cfg: None, config=said
        )


def test_what_a_job_does_together_reaches_it_whatever_it_holds() -> None:
    odd = ("task.path='a b/it\\'s'", 'task.name="${seed}"', "logger.options={a: [1,2], b: \\$x}", "seed=0")
    runs = [Point(Config(), 2, 4, Path(str(seed)), False, (*odd[:-1], f"seed={seed}")) for seed in (0, 1)]

    *first, points = overrides_of(runs)

    assert first == list(odd)
    (parsed,) = OverridesParser.create().parse_overrides([points])
    assert json.loads(str(parsed.value())) == [list(run.overrides) for run in runs]
    assert overrides_of(runs[:1]) == list(odd)


def test_runs_of_a_sweep_are_done_together_and_the_others_alone(
    sweeping: Sweeping, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["method=reduced,finetune", "cut=2", "seed=0,1,2", "optim.lr=1e-3,2e-3"]

    assert sweeping(*asked, together=4) == 0

    sizes = [len(json.loads(said)) if said else 1 for said in sweeping.groups]
    assert sorted(sizes) == [1] * 6 + [2, 4]
    done = [read(path) for path in (tmp_path / "runs").rglob("result.json")]
    assert len(done) == 12
    assert sorted(result.env.get("together", 1) for result in done) == [1] * 6 + [2] * 2 + [4] * 4


@pytest.mark.usefixtures("fit_fails_for_seed_1")
def test_of_runs_that_are_done_together_only_those_that_failed_are_told(
    sweeping: Sweeping, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweeping("method=reduced", "cut=2", "seed=0,1,2", together=3) == 1

    assert len(list((tmp_path / "runs").rglob("result.json"))) == 2
    assert "Sweep: 2 done, 0 skipped (done before), 1 failed:" in capsys.readouterr().out
