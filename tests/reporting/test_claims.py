"""What stands next to the paper: our runs and benches, where it states a figure under the same conditions."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from er.config import Config, Report
from er.reporting.claims import beside
from er.reporting.gather import gather
from er.reporting.write import write
from tests.reporting.studies import HERE, doubts, leave, result

FILES = ["report.html", "report.md", "report.tex", "runs.csv", "runs.parquet"]


def test_the_paper_is_quoted_only_for_what_it_states(tmp_path: Path, three_arms: list[Config]) -> None:
    for task, config in itertools.product(["scicite", "rte"], three_arms):
        leave(tmp_path, result(replace(config, task=replace(config.task, name=task))))
    found = gather(tmp_path)

    (claim,) = beside(found.table, found.done)
    assert (claim.stated, claim.runs) == ("100", 2)
    assert claim.warm == pytest.approx((40 / 15 - 1) * 100)
    assert "scicite" in claim.setting and "rte" not in claim.setting


def test_a_speedup_that_we_do_not_have_stands_beside_no_claim(tmp_path: Path, three_arms: list[Config]) -> None:
    recycled = three_arms[2]
    leave(tmp_path, result(replace(recycled, task=replace(recycled.task, name="scicite"))))
    found = gather(tmp_path)

    assert beside(found.table, found.done) == []


def test_the_cut_of_a_claim_is_its_layer_however_it_was_typed(tmp_path: Path, three_arms: list[Config]) -> None:
    for config in three_arms[:3]:
        typed = replace(config.method, cut=3) if config.method.recycles else config.method
        leave(tmp_path, result(replace(config, method=typed, task=replace(config.task, name="scicite"))))
    found = gather(tmp_path)

    assert [claim.stated for claim in beside(found.table, found.done)] == ["100"]


@pytest.mark.parametrize(("part", "difference"), [("task", {"limit": 10}), ("model", {"random": True})])
def test_the_paper_is_not_quoted_for_runs_that_it_cannot_mean(
    tmp_path: Path, three_arms: list[Config], part: str, difference: dict[str, Any]
) -> None:
    for config in three_arms[:3]:
        named = replace(config, task=replace(config.task, name="scicite"))
        leave(tmp_path, result(replace(named, **{part: replace(getattr(named, part), **difference)})))
    found = gather(tmp_path)

    assert found.table.warm.notna().all()
    assert beside(found.table, found.done) == []


def bench(runs: Path, name: str, **parts: Any) -> None:
    """Leave a record of `er bench`: the recycled arm is twice as fast as finetune in training."""
    mode = {"batch_size": 10, "seconds": {"finetune": [2.0], "frozen": [1.5], "recycled": [1.0]}}
    build = {"inputs": 500, "bytes": 1, "seconds": {"build": [2.0], "plain": [2.0]}}
    record = {"task": "scicite", "model": "m", "method": "reduced", "k": 6, "depth": 12, "env": HERE}
    path = runs / "bench" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record | {"training": mode, "inference": mode, "build": build} | parts))


def test_what_er_bench_has_timed_stands_in_the_report_beside_the_paper(study: Path, tmp_path: Path) -> None:
    bench(study, "a")
    bench(study, "b", task="rte", storage="float16", precision="32-true")
    write(gather(study), Report(), "", tmp_path / "out")

    page, text = ((tmp_path / "out" / name).read_text() for name in ("report.html", "report.md"))
    assert "Timed by er bench" in page and "training, m, scicite, reduced, cut 6 of 12" in page
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "6 of 12" in line]
    paper = [row[-2] for row in rows]
    assert rows[0][:9] == [
        "training", "m", "scicite", "reduced", "6 of 12", "", "100.0", "50.0", "4.0"
    ]  # fmt: skip
    assert paper == ["100", "55-86", "", ""]
    assert rows[2][5] == "32-true, float16"


@pytest.mark.parametrize("parts", [{"training": None}, {"build": {}}, {"env": []}, {"k": "x"}, {"training": {}}])
def test_a_bench_that_is_none_is_left_out_and_named(study: Path, parts: dict[str, Any]) -> None:
    bench(study, "good")
    bench(study, "bad", **parts)

    found = gather(study)
    assert len(found.timed) == 2
    assert "bad.json is not a record of er bench" in doubts(study)["Left out"]
