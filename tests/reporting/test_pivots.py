"""A pivot shows the means by any field, marks the best, and marks only differences that were tested."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from er import tables
from er.config import Config
from er.errors import UserError
from er.reporting.gather import gather
from er.reporting.pivots import Cell, Pivot, pivot
from er.reporting.significance import differences, with_baseline
from er.results import Result
from tests.reporting.studies import leave, result

COLUMNS = ["method", "cut", "arm", "storage"]


def made(runs: Path, rows: list[str], columns: list[str], value: str = "score") -> Pivot:
    found = gather(runs)
    known = differences(with_baseline(found.table), tables.SETTING)
    return pivot(found.table, found.done, rows, columns, value, known)


def cells(found: Pivot) -> dict[tuple[tuple[str, ...], str], Cell | None]:
    return {(row, name): cell for row, line in found.rows for name, cell in zip(found.columns, line, strict=True)}


def test_what_all_runs_share_is_said_once(study: Path) -> None:
    found = made(study, ["task", "model"], COLUMNS)

    assert found.heads == []
    assert found.said == "task stdlib_docs, model minilm_l6"
    assert found.columns == ["finetune", "reduced cut 3 frozen", "reduced cut 3 recycled"]


def test_cells_are_means_over_seeds_and_the_best_is_marked(study: Path) -> None:
    found = cells(made(study, ["task"], COLUMNS))
    table = gather(study).table

    tuned = found[(), "finetune"]
    assert tuned is not None and tuned.best and tuned.count == 2
    scores = table.loc[table.method == "finetune", "score"]
    assert [tuned.mean, tuned.deviation] == pytest.approx([scores.mean(), scores.std()])
    assert sum(cell is not None and cell.best for cell in found.values()) == 1


def test_a_clear_loss_is_marked_and_equal_runs_are_not(study: Path, three_arms: list[Config]) -> None:
    assert [cell.sign for cell in cells(made(study, ["task"], COLUMNS)).values() if cell] == ["", "-", "-"]

    for config in three_arms:
        leave(study, result(config), np.arange(200) % 5 > 0)
    assert [cell.sign for cell in cells(made(study, ["task"], COLUMNS)).values() if cell] == ["", "", ""]


def test_a_part_of_what_was_tested_gets_no_mark(study: Path) -> None:
    assert not any(cell.sign for cell in cells(made(study, ["seed"], COLUMNS)).values() if cell)


@pytest.mark.parametrize("spoil", ["missing", "foreign", "other examples"])
def test_without_predictions_of_the_same_examples_nothing_is_marked(
    study: Path, three_arms: list[Config], spoil: str
) -> None:
    for path in study.rglob("reduced-*/predictions.jsonl"):
        text = path.read_text()
        path.unlink()
        if spoil != "missing":
            path.write_text("[]\n" if spoil == "foreign" else text.replace('"label": "a"', '"label": "c"'))

    assert not any(cell.sign for cell in cells(made(study, ["task"], COLUMNS)).values() if cell)


def test_dotted_paths_reach_into_the_configuration(study: Path, three_arms: list[Config]) -> None:
    slow = replace(three_arms[0], optim=replace(three_arms[0].optim, lr=0.5))
    leave(study, result(slow))

    found = made(study, ["optim.lr"], ["method"])

    assert found.heads == ["optim.lr"]
    assert {row for row, _ in cells(found)} == {(str(three_arms[0].optim.lr),), ("0.5",)}


def test_numbers_come_in_their_order(tmp_path: Path, three_arms: list[Config]) -> None:
    for lr in (1e-3, 5e-6, 2e-4):
        leave(tmp_path / "rates", tuned(three_arms[0], lr, seed=0, dev=0.5, test=0.5))
    for size in (8, 128, 16):
        of_size = replace(three_arms[0], optim=replace(three_arms[0].optim, batch_size=size))
        leave(tmp_path / "sizes", result(of_size))

    rates, sizes = (
        [row for (row,), _ in cells(made(tmp_path / folder, [field], ["method"]))]
        for folder, field in (("rates", "optim.lr"), ("sizes", "batch_size"))
    )
    assert rates == ["5e-06", "0.0002", "0.001"]
    assert sizes == ["8", "16", "128"]


def test_scores_by_their_own_name_are_percent_too(study: Path) -> None:
    by_name, by_role = (made(study, ["task"], COLUMNS, value) for value in ("accuracy", "score"))

    assert [cell and cell.mean for cell in cells(by_name).values()] == [
        pytest.approx(cell.mean) if cell else None for cell in cells(by_role).values()
    ]


def test_fields_that_a_cell_mixes_are_named(study: Path, three_arms: list[Config]) -> None:
    leave(study, result(replace(three_arms[0], optim=replace(three_arms[0].optim, lr=0.5))))

    assert "optim.lr" in made(study, ["task"], ["method"]).mixed
    assert "optim.lr" in made(study, ["task"], ["method"]).notes


def test_seconds_of_different_hardware_are_different_rows(study: Path, three_arms: list[Config]) -> None:
    leave(study / "elsewhere", result(three_arms[0], host="elsewhere"))

    assert made(study, ["task"], ["method"], "train_s").heads == ["host"]
    assert made(study, ["task"], ["method"], "score").heads == []


def test_a_speedup_over_itself_is_no_cell(study: Path) -> None:
    assert made(study, ["task"], COLUMNS, "warm").columns == ["frozen", "recycled"]


def test_an_unknown_field_is_named(study: Path) -> None:
    with pytest.raises(UserError, match=r"optim\.lrr"):
        made(study, ["optim.lrr"], ["method"])


def test_a_value_that_is_no_number_is_named(study: Path) -> None:
    with pytest.raises(UserError, match=r"report\.values=arm"):
        made(study, ["task"], ["method"], "arm")


def test_an_unmeasured_value_leaves_no_rows(tmp_path: Path, three_arms: list[Config]) -> None:
    leave(tmp_path, result(three_arms[2]))

    assert made(tmp_path, ["task"], ["method"], "warm").rows == []


def tuned(config: Config, lr: float, seed: int, dev: float, test: float) -> Result:
    other = replace(config, seed=seed, optim=replace(config.optim, lr=lr))
    return result(other, metrics={"test/accuracy": test, "dev/accuracy": dev})


@pytest.mark.parametrize("rates", [(0.1, 0.2), (0.2, 0.1)])
def test_scores_are_compared_with_the_finetune_setting_that_dev_prefers(
    tmp_path: Path, three_arms: list[Config], rates: tuple[float, float]
) -> None:
    base, _, recycled, *_ = three_arms
    liked, other = rates
    for seed in (0, 1):
        leave(tmp_path, result(replace(recycled, seed=seed), score=0.75))
        leave(tmp_path, tuned(base, liked, seed, dev=0.9 - 0.3 * seed, test=0.7))
        leave(tmp_path, tuned(base, other, seed, dev=0.7, test=0.8))
    leave(tmp_path, result(replace(recycled, seed=2), score=0.75))
    leave(tmp_path, tuned(base, other, 2, dev=0.7, test=0.8))

    table = with_baseline(gather(tmp_path).table)

    ours = table.loc[table.method == "reduced"].set_index("seed")
    assert ours.score_base.to_dict() == pytest.approx({0: 70.0, 1: 70.0, 2: 80.0})


def test_speedups_have_the_same_baseline_however_settings_are_hashed(tmp_path: Path, three_arms: list[Config]) -> None:
    base, _, recycled, *_ = three_arms
    leave(tmp_path, result(recycled))
    for lr in (0.1, 0.2, 0.3, 0.4):
        each = tuned(base, lr, 0, dev=0.5 + lr, test=0.8)
        leave(tmp_path, replace(each, seconds=each.seconds | {"train": 100 * lr}))

    (warm,) = gather(tmp_path).table.loc[lambda t: t.method == "reduced", "warm"]
    assert warm == pytest.approx((41 / 15 - 1) * 100)
