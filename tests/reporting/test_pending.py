"""What is still to be run is listed with the command that runs it, exactly."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from er import identity, results
from er.config import CONF, Config
from er.reporting import overrides
from er.reporting.gather import gather
from er.reporting.overrides import PARTS, command
from er.reporting.pending import pending
from er.results import Result
from er.training.run import run
from tests.reporting.studies import leave, result

OPTIONS = [f"{group}={path.stem}" for group in ("model", "task", "method") for path in (CONF / group).glob("*.yaml")]

SETTINGS = [
    "optim=paper",
    "trainer=cpu",
    "trainer.precision=bfloat16",
    "cache.mode=off",
    "cache.dtype=int8",
    "cut=2",
    "seed=7",
    "optim.lr=1e-6",
    "optim.patience=null",
    "task.limit=40",
    "method.adapter.bottleneck=32",
    "'task.text=[title, the body]'",
    "task.path='/some folder/of mine'",
    'task.label="it\'s"',
    "model.revision='0123'",
    "model.revision='null'",
    "paths.data=/data",
]


def same(composed: Callable[..., Config], *wanted: str) -> None:
    config = identity.plain(composed(*wanted))
    verb, train, *said = shlex.split(command(config))
    again = identity.plain(composed(*said))

    assert (verb, train) == ("er", "train")
    assert {part: again[part] for part in (*PARTS, "cut", "seed")} == {
        part: config[part] for part in (*PARTS, "cut", "seed")
    }


@pytest.mark.parametrize("option", OPTIONS)
def test_the_command_composes_every_option(composed: Callable[..., Config], option: str) -> None:
    needs = {"model=hf": ["model.path=m"]}.get(option, [])
    needs += ["task.path=d"] if option.removeprefix("task=") in KINDS else []
    same(composed, option, *needs)


KINDS = ("classification", "pair_classification", "tagging", "extractive_qa")


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_command_composes_every_setting(composed: Callable[..., Config], setting: str) -> None:
    same(composed, setting.strip("'") if setting.startswith("'") else setting)


def test_a_name_that_is_no_option_is_set_on_one_that_is(composed: Callable[..., Config]) -> None:
    same(composed, "task=tagging", "task.path=d", "task.name=mine", "model=hf", "model.path=m", "model.name=ours")


@given(st.text(st.characters(exclude_categories=["C"], exclude_characters="$"), min_size=1))
def test_any_text_survives_the_grammar(text: str) -> None:
    (parsed,) = OverridesParser.create().parse_overrides([f"task.path={overrides._text(text)}"])

    assert parsed.value() == text
    assert isinstance(parsed.value(), str)


def test_a_whole_grid_leaves_nothing_to_run(study: Path) -> None:
    assert pending(gather(study)) == []


def test_a_missing_seed_is_listed_with_its_command(
    study: Path, three_arms: list[Config], composed: Callable[..., Config]
) -> None:
    gone = result(three_arms[-1])
    shutil.rmtree(next(study.rglob(f"*-{gone.run_id}")))

    (found,) = pending(gather(study))

    again = result(composed(*shlex.split(found.command)[2:]))
    assert again.run_id == gone.run_id
    assert found.state == "never started"


def test_a_missing_task_is_listed_for_every_arm_and_seed(study: Path, three_arms: list[Config]) -> None:
    other = replace(three_arms[0], task=replace(three_arms[0].task, name="rte"))
    leave(study, result(other))

    found = pending(gather(study))

    assert len(found) == 5
    assert {(each.task, each.model) for each in found} == {("rte", "minilm_l6")}
    assert len({each.command for each in found}) == 5


def test_runs_trained_otherwise_are_another_study(study: Path, three_arms: list[Config]) -> None:
    other = replace(three_arms[0], optim=replace(three_arms[0].optim, epochs=9))
    leave(study, result(other))

    assert pending(gather(study)) == []


def test_an_interrupted_run_is_recognised_by_its_folder(study: Path, three_arms: list[Config]) -> None:
    gone = result(three_arms[-1])
    folder = next(study.rglob(f"*-{gone.run_id}"))
    (folder / results.NAME).unlink()
    (folder / "checkpoints").mkdir()

    (found,) = pending(gather(study))

    assert (found.state, found.seed, found.method) == ("interrupted", "1", "reduced")
    assert "seed=1" in shlex.split(found.command)


def test_a_failed_run_says_why_and_how_to_go_on(study: Path) -> None:
    folder = study / "rte" / "minilm_l6" / "probe-0123456789ab"
    folder.mkdir(parents=True)
    said = {"error": "out of memory", "traceback": "...", "command": "er train task=rte method=probe"}
    (folder / "failed.json").write_text(json.dumps(said))

    (found,) = pending(gather(study))

    assert (found.state, found.command) == ("out of memory", "er train task=rte method=probe")


@pytest.mark.parametrize("text", ["", "[]", '{"command": 3}'])
def test_an_unreadable_failure_is_a_failure(study: Path, text: str) -> None:
    folder = study / "rte" / "minilm_l6" / "probe-0123456789ab"
    folder.mkdir(parents=True)
    (folder / "failed.json").write_text(text)

    (found,) = pending(gather(study))

    assert "failed.json" in found.state
    assert found.command.startswith("er train model=minilm_l6 task=rte method=probe")


@pytest.mark.parametrize("left", ["log.txt", "run.begun"])
def test_a_run_that_was_killed_before_its_first_checkpoint_is_listed(study: Path, left: str) -> None:
    folder = study / "rte" / "minilm_l6" / "probe-0123456789ab"
    folder.mkdir(parents=True)
    (folder / left).write_text("[]")

    (found,) = pending(gather(study))

    assert (found.task, found.method, found.state) == ("rte", "probe", "interrupted")


def test_a_single_run_that_was_killed_is_completed_by_its_own_command(
    tmp_path: Path, small: Callable[..., Config], composed: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small("optim.lr=0.017", "seed=5")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("er.training.run._train", killed)
    with pytest.raises(KeyboardInterrupt):
        run(config)

    (found,) = pending(gather(tmp_path / "runs"))
    assert (found.seed, found.cut, found.state) == ("5", "0.5", "interrupted")
    assert "optim.lr=0.017" in found.command
    again = composed(*shlex.split(found.command)[2:])
    assert (again.optim, again.paths.runs, again.seed) == (config.optim, config.paths.runs, 5)


def test_what_was_left_while_a_run_went_on_goes_when_it_ends(train: Callable[..., Result], tmp_path: Path) -> None:
    train("optim.epochs=1")

    assert list(tmp_path.rglob(results.NAME))
    assert not list(tmp_path.rglob(results.BEGUN)) and not list(tmp_path.rglob(results.LOG))
