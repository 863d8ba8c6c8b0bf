"""A plan says what is done, what is impossible, what is missing and what the rest takes; then it is so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.errors import HydraException

from er.commands.plan import plan
from er.config import Config
from er.errors import UserError
from er.results import Result
from er.studies.foresee import expected, foresee
from er.studies.planning import Setting
from er.studies.profile import Profile, opened
from er.studies.study import Shelf, placed
from er.training.run import run

Small = Callable[..., Config]


def planned(*configs: Config) -> list[Setting]:
    shelf = Shelf()
    return foresee([placed(config, shelf) for config in configs], shelf, profile(configs[0]))


def profile(config: Config) -> Profile:
    return opened(config, torch.device("cpu"))


def about(tmp_path: Path, encoder: Path, words: Path) -> list[str]:
    paths = [f"paths.cache={tmp_path}/cache", f"paths.runs={tmp_path}/runs", f"task.path={words}"]
    return ["model=hf", f"model.path={encoder}", "task=classification", "trainer=cpu", "trainer.progress=false", *paths]


def er(*arguments: str) -> subprocess.CompletedProcess[str]:
    command, environment = [sys.executable, "-m", "er", "plan", *arguments], os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, to time anything is an error."""

    def timed(*_: object, **__: object) -> None:
        raise AssertionError("something was timed")

    monkeypatch.setattr("er.studies.calibrate.alternate", timed)
    monkeypatch.setattr("er.studies.calibrate._built", timed)


def record(tmp_path: Path) -> dict[str, Any]:
    (path,) = (tmp_path / "runs" / "plan").glob("*.json")
    return dict(json.loads(path.read_text()))


def test_a_sweep_is_planned_without_running_any_of_it(tmp_path: Path, checkpoint: Path, words: Path) -> None:
    study = ["arm=finetune,frozen,recycled", "cut=2,9", "seed=0,1", "optim.epochs=2", "optim.batch_size=8"]
    done = er(*about(tmp_path, checkpoint, words), *study)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said = record(tmp_path)
    assert (said["points"], said["runs"], said["done"]) == (12, 6, 0)  # finetune knows no cut
    assert [(each["arm"], each["epochs"]) for each in said["settings"]] == [
        (arm, [2, 2]) for arm in ("finetune", "frozen", "recycled")
    ]
    assert all(pace["epoch"] > 0 for each in said["settings"] for pace in each["paces"].values())
    assert [len(points) for points in said["impossible"].values()] == [4]
    assert "cut=9: this encoder has 4 layers" in done.stdout and "and 3 more" in done.stdout
    assert not list(tmp_path.rglob("result.json")) and not list(tmp_path.rglob("space.json"))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["cut=9"], "cut=9"),
        (["task.path=./nowhere,./nirgends"], "nirgends"),
        (["seed=0,1", "optim.lrr=1"], "lrr"),
        (["seed=0,1", "optim.epochs=0"], "optim.epochs=0"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    tmp_path: Path, checkpoint: Path, words: Path, overrides: list[str], says: str
) -> None:
    with pytest.raises(HydraException, match=says):
        plan([*about(tmp_path, checkpoint, words), *overrides], tmp_path / "runs", progress=False)

    assert not (tmp_path / "runs").exists()


def test_a_profile_can_be_named_on_the_command_line(tmp_path: Path, checkpoint: Path, words: Path) -> None:
    options = [*about(tmp_path, checkpoint, words), "method=probe", "plan.profile=nobodys"]

    with pytest.raises(UserError, match=r"plan.profile=nobodys: there is no file"):
        plan(options, tmp_path / "runs", progress=False)


def test_what_is_said_to_be_missing_is_what_is_then_built(small: Small) -> None:
    config = small("method=reduced", "cut=2")
    (before,) = planned(config)
    result = run(config)
    (after,) = planned(small("method=reduced", "cut=2", "seed=1"))

    assert result.cache is not None
    assert before.missing == before.own and before.missing.bytes == result.cache["bytes"]
    assert after.missing.bytes == after.missing.seconds == 0


def test_a_run_that_is_done_is_counted_and_not_timed(small: Small) -> None:
    config = small("method=reduced", "cut=2")
    run(config)

    (setting,) = planned(config)

    assert (setting.done, setting.epochs, setting.paces) == (1, (), {})


def test_entries_that_settings_share_are_built_by_the_first(small: Small) -> None:
    first, second, other = planned(
        small("method=reduced", "cut=2"), small("method=reduced_adapters", "cut=2"), small("method=reduced", "cut=3")
    )

    assert first.missing.bytes == second.missing.bytes == other.missing.bytes
    assert sorted([first.own.bytes, second.own.bytes]) == [0, other.own.bytes]


@pytest.mark.parametrize("method", ["adapters", "bitfit", "probe", "cross_model"])
def test_every_method_has_a_pace(small: Small, method: str) -> None:
    (setting,) = planned(small(f"method={method}"))

    assert setting.paces[setting.arm].run(2) > 0
    assert (setting.own.seconds > 0) == setting.recycles


def test_what_was_timed_once_is_known_to_every_later_plan(
    small: Small, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    words = ["method=reduced", "cut=2"]
    (before,) = planned(small(*words))
    request.getfixturevalue("no_timing")

    assert planned(small(*words)) == [before]
    assert planned(small(*words, "optim.epochs=9", "optim.lr=1e-5"))[0].paces == before.paces
    assert planned(small("method=finetune"))[0].paces["finetune"] == before.paces["finetune"]
    for other in ("cut=3", "optim.batch_size=4", "cache.dtype=int8", "plan.again=true", "method=reduced_adapters"):
        with pytest.raises(AssertionError, match="something was timed"):
            planned(small(*words, other))
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"tokens", "profiles"}


def test_nothing_is_timed_for_what_is_merely_expected(
    small: Small, tmp_path: Path, words: Path, checkpoint: Path
) -> None:
    point = [*about(tmp_path, checkpoint, words), "method=reduced", "cut=2", "optim.batch_size=8"]
    study, (unknown,) = expected([point])
    planned(small("method=reduced", "cut=2"))
    _, (known,) = expected([point])

    assert len(study.runs) == 1
    assert unknown.hours is None and unknown.missing.bytes == known.missing.bytes > 0
    assert known.hours is not None and known.hours > 0


def test_another_machines_profile_says_what_it_takes_there(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    (here,) = planned(small("method=reduced", "cut=2"))
    file = profile(small()).path
    elsewhere = json.loads(file.read_text()) | {"hardware": {"device": "Colossus", "threads": 1}}
    for entry in elsewhere["entries"].values():
        entry["torch"] = "0.1"
        entry["costs"] = {what: [2 * part for part in cost] for what, cost in entry["costs"].items()}
    (file.parent / "colossus.json").write_text(json.dumps(elsewhere))
    request.getfixturevalue("no_timing")

    for asked in ("colossus", file.parent / "colossus.json"):
        (there,) = planned(small("method=reduced", "cut=2", f"plan.profile={asked}"))
        assert there.paces["recycled"].epoch == pytest.approx(2 * here.paces["recycled"].epoch)
        assert there.own.seconds == pytest.approx(2 * here.own.seconds)
    with pytest.raises(UserError, match="colossus, of another machine, has no timing"):
        planned(small("method=reduced", "cut=3", "plan.profile=colossus"))
    with pytest.raises(UserError, match=r"Known here: .*colossus"):
        planned(small("plan.profile=colosus"))


HARDWARE = '"hardware": {"device": "abacus", "threads": 1}'


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"version": 0, "hardware": {}, "entries": {}}',
        f'{{"version": 1, {HARDWARE}, "entries": []}}',
        f'{{"version": 1, {HARDWARE}, "entries": {{"x": {{}}}}}}',
    ],
)
def test_what_is_no_profile_is_named(small: Small, tmp_path: Path, content: str) -> None:
    file = tmp_path / "mine.json"
    file.write_text(content)

    with pytest.raises(UserError, match=r"mine.json is no profile"):
        profile(small(f"plan.profile={file}"))


@pytest.mark.slow
def test_it_then_takes_as_long_as_was_said(composed: Callable[..., Config], tmp_path: Path) -> None:
    """Building and epochs of a real encoder on real text, within a quarter."""
    common = ["task.limit=600", "optim.epochs=3", "optim.patience=null", "trainer=cpu", "trainer.progress=false"]
    paths = [f"paths.cache={tmp_path}/cache", f"paths.runs={tmp_path}/runs"]
    configs = [composed(*common, *paths, f"method={method}") for method in ("finetune", "reduced")]
    finetune, reduced = planned(*configs)
    whole, recycled = map(run, configs)

    assert recycled.cache is not None
    assert ratios(
        {
            "build": (reduced.missing.seconds, recycled.seconds["build"]),
            "finetune": (finetune.paces["finetune"].epoch, epoch(whole)),
            "recycled": (reduced.paces["recycled"].epoch, epoch(recycled)),
        }
    ) == {"build": pytest.approx(1, abs=0.25)} | dict.fromkeys(("finetune", "recycled"), pytest.approx(1, abs=0.25))


def epoch(result: Result) -> float:
    """Seconds of an epoch of training."""
    return (result.seconds["train"] + result.seconds["read"]) / len(result.history)


def ratios(said_and_so: dict[str, tuple[float, float]]) -> dict[str, float]:
    return {name: said / so for name, (said, so) in said_and_so.items()}
