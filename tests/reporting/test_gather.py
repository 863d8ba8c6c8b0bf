"""Whatever lies in a runs folder, what is a result is read, and what is none is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from er import results, tables
from er.config import Config, Report
from er.errors import UserError
from er.reporting.gather import finished, gather
from er.reporting.write import write
from tests.reporting.studies import leave, result

FOREIGN = {
    "foreign": "[]",
    "cut off": '{"run_id": "x", "ident',
    "other": '{"a": 1}',
    "empty": "",
    "a number": "3",
}


def test_every_run_is_read_finetune_first(study: Path) -> None:
    found = gather(study)

    assert (len(found.done), len(found.table)) == (6, 6)
    assert [result.run_id for result in found.done] == list(found.table.run_id)
    assert list(found.table.method[:2]) == ["finetune"] * 2
    assert not found.skipped and not found.unfinished


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_result_is_left_out_and_named(study: Path, text: str) -> None:
    path = study / "task" / "model" / "run" / results.NAME
    path.parent.mkdir(parents=True)
    path.write_text(text)

    found = gather(study)

    assert len(found.done) == 6
    assert list(found.skipped) == [path]
    assert str(path) in found.skipped[path]


@pytest.mark.parametrize(
    "spoilt",
    [{"identity": {}}, {"seconds": None}, {"env": []}, {"version": 99}, {"metrics": "good"}, {"steps": "many"}],
)
def test_a_result_whose_parts_are_none_is_left_out(study: Path, spoilt: dict[str, Any]) -> None:
    path = next(study.rglob(results.NAME))
    path.write_text(json.dumps(json.loads(path.read_text()) | spoilt))

    found = gather(study)

    assert (len(found.done), list(found.skipped)) == (5, [path])


def test_a_copied_run_counts_once(study: Path) -> None:
    shutil.copytree(next(study.rglob(results.NAME)).parent, study / "copy")

    assert len(gather(study).done) == 6


def test_the_same_run_on_other_hardware_is_another(study: Path, three_arms: list[Config]) -> None:
    leave(study / "elsewhere", result(three_arms[0], host="elsewhere"))

    assert len(gather(study).done) == 7


def test_a_run_without_its_score_is_kept(tmp_path: Path, composed: Callable[..., Config]) -> None:
    leave(tmp_path, result(composed("method=finetune"), metrics={"dev/loss": 1.0}))

    assert gather(tmp_path).table.score.isna().all()


def test_no_runs_at_all_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run"):
        finished(gather(tmp_path))


def test_without_a_finished_run_it_is_said_what_there_is_instead(tmp_path: Path) -> None:
    (tmp_path / "a" / "checkpoints").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / results.NAME).write_text("{")

    with pytest.raises(UserError, match=r"1 left out; 1 unfinished: er report report.pending=true"):
        finished(gather(tmp_path))


@pytest.mark.parametrize("difference", [{"host": "elsewhere"}, {"packages": {"er": "0.1.0", "torch": "2.12.0"}}])
def test_times_of_other_hardware_and_versions_are_never_divided(
    tmp_path: Path, three_arms: list[Config], difference: dict[str, Any]
) -> None:
    tuned, _, recycled = three_arms[:3]
    leave(tmp_path, result(tuned))
    leave(tmp_path, result(recycled, **difference))

    table = gather(tmp_path).table
    assert table.loc[table.arm == "recycled", ["warm", "cold", "break_even"]].isna().all(axis=None)


def test_other_batch_sizes_have_no_speedup(tmp_path: Path, three_arms: list[Config]) -> None:
    tuned, _, recycled = three_arms[:3]
    leave(tmp_path, result(tuned))
    leave(tmp_path, result(replace(recycled, optim=replace(recycled.optim, batch_size=64))))

    assert gather(tmp_path).table.loc[lambda t: t.arm == "recycled", "warm"].isna().all()


def spoilt(tree: Any, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield, for every part of a record, its name and a copy of the record with `value` in its place."""
    for name in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        whole = copy(tree)
        whole[name] = value
        yield str(name), whole
        for below, part in spoilt(tree[name], value):
            whole = copy(tree)
            whole[name] = part
            yield f"{name}.{below}", whole


@pytest.mark.parametrize("value", [None, "x", 3, True, [], {}, ["x"], {"x": None}], ids=str)
def test_a_record_of_which_any_part_is_something_else_stops_no_report(
    study: Path, three_arms: list[Config], tmp_path: Path, value: Any
) -> None:
    real = asdict(replace(result(three_arms[2]), labels=["a"]))
    for name, record in spoilt(real, value):
        path = study / "spoilt" / f"{name}" / results.NAME
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(record if name == "run_id" else record | {"run_id": name}))

    found = gather(study)
    write(found, Report(figures=0), "", tmp_path / "out")
    assert tables.summary(found.table).seeds.notna().all()
    assert len(found.done) >= 6
    assert all(str(path) in reason for path, reason in found.skipped.items())


def test_a_metric_that_is_null_is_dropped_and_the_run_kept(tmp_path: Path, composed: Callable[..., Config]) -> None:
    metrics: dict[str, Any] = {"test/accuracy": 0.5, "test/macro_f1": None}
    leave(tmp_path, result(composed("method=finetune"), metrics=metrics))

    found = gather(tmp_path)
    assert found.table.score.tolist() == [50.0]
    assert "macro_f1" not in found.table


@pytest.mark.parametrize("difference", [{"together": 4}, {"cpus": 1}])
def test_times_of_runs_that_share_readings_or_cores_are_never_divided(
    tmp_path: Path, three_arms: list[Config], difference: dict[str, Any]
) -> None:
    tuned, _, recycled = three_arms[:3]
    leave(tmp_path, result(tuned))
    leave(tmp_path, result(recycled, **difference))

    assert gather(tmp_path).table.loc[lambda t: t.arm == "recycled", "warm"].isna().all()


def test_times_of_other_attention_are_never_divided(tmp_path: Path, three_arms: list[Config]) -> None:
    tuned, _, recycled = three_arms[:3]
    leave(tmp_path, result(tuned))
    leave(tmp_path, result(replace(recycled, model=replace(recycled.model, attention="eager"))))

    assert gather(tmp_path).table.loc[lambda t: t.arm == "recycled", "warm"].isna().all()


def test_times_of_texts_cut_elsewhere_are_never_divided(tmp_path: Path, three_arms: list[Config]) -> None:
    tuned, _, recycled = three_arms[:3]
    leave(tmp_path, result(tuned))
    leave(tmp_path, result(replace(recycled, task=replace(recycled.task, max_length=64))))

    assert gather(tmp_path).table.loc[lambda t: t.arm == "recycled", "warm"].isna().all()
