"""A report is whole: tables, figures and a page that needs nothing beside it."""

from __future__ import annotations

import itertools
import json
import os
import re
import resource
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from er import tables
from er.config import CONF, Config, Report
from er.reporting.claims import beside
from er.reporting.findings import opening
from er.reporting.gather import gather
from er.reporting.glossary import explained
from er.reporting.significance import differences, with_baseline
from er.reporting.write import write
from tests.reporting.studies import HERE, leave, many, result

FILES = ["report.html", "report.md", "report.tex", "runs.csv", "runs.parquet"]


def er_report(cwd: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "er", "report", *overrides]
    return subprocess.run(command, cwd=cwd, env=os.environ, capture_output=True, text=True, timeout=120)


def doubts(runs: Path) -> dict[str, str]:
    found = gather(runs)
    known = differences(with_baseline(found.table), tables.SETTING)
    return {each.title: each.says for each in opening(found, known, 0).findings if not each.good}


def test_the_command_writes_all_of_it_and_loads_no_torch(study: Path, tmp_path: Path) -> None:
    script = (
        "import sys, er.__main__ as e; sys.argv = ['er', *sys.argv[1:]]; e.main(); assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", script, "report", f"paths.runs={study}", "report.to=out", "report.columns=method"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert "6 runs" in done.stdout
    assert all((tmp_path / "out" / name).stat().st_size > 0 for name in FILES)
    assert not any((study / name).exists() for name in FILES)


def test_without_runs_the_command_fails_and_writes_nothing(tmp_path: Path) -> None:
    done = er_report(tmp_path, "paths.runs=nowhere")

    assert done.returncode == 1
    assert "nowhere holds no finished run" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_pending_prints_commands_and_nothing_else(study: Path, three_arms: list[Config]) -> None:
    (next(study.rglob(f"*-{result(three_arms[-1]).run_id}")) / "result.json").unlink()

    done = er_report(study.parent, f"paths.runs={study}", "report.pending=true")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("er train model=minilm_l6 task=stdlib_docs method=reduced")
    assert done.stdout.count("\n") == 1


def test_both_tables_of_runs_hold_every_run(study: Path, tmp_path: Path) -> None:
    found = gather(study)
    write(found, Report(), "", tmp_path / "out")

    csv, parquet = pd.read_csv(tmp_path / "out/runs.csv"), pd.read_parquet(tmp_path / "out/runs.parquet")
    assert list(csv.run_id) == list(parquet.run_id) == [each.run_id for each in found.done]
    assert list(csv.warm) == pytest.approx(list(parquet.warm))


def test_the_same_runs_give_the_same_report(study: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(gather(study), Report(), "", tmp_path / name)

    one, other = (sorted(path for path in (tmp_path / name).rglob("*") if path.is_file()) for name in "ab")
    assert [path.name for path in one] == [path.name for path in other]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_every_kind_of_figure_is_drawn_as_svg_and_png(study: Path, three_arms: list[Config], tmp_path: Path) -> None:
    for config in three_arms:
        if config.method.recycles:
            leave(study, result(replace(config, method=replace(config.method, cut=2), cut=2)))
    write(gather(study), Report(), "", tmp_path / "out")

    for kind, suffix in itertools.product(
        ["score_speed", "score_cut", "time", "break_even", "confusion"], ["svg", "png"]
    ):
        assert list((tmp_path / "out/figures").glob(f"{kind}-*.{suffix}")), (kind, suffix)
    for path in (tmp_path / "out/figures").glob("*.svg"):
        ElementTree.parse(path)


def test_figures_of_runs_that_are_gone_go(study: Path, tmp_path: Path) -> None:
    write(gather(study), Report(), "", tmp_path / "out")
    (tmp_path / "out/figures/mine.svg").write_text("")
    write(gather(study), Report(figures=0), "", tmp_path / "out")

    assert [path.name for path in (tmp_path / "out/figures").iterdir()] == ["mine.svg"]


def test_the_page_asks_for_nothing_outside_itself(study: Path, tmp_path: Path) -> None:
    write(gather(study), Report(), "", tmp_path / "out")

    page = (tmp_path / "out/report.html").read_text()
    asked = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)|url\(([^)]*)\)|@import""", page)
    assert all((link or style).strip("\"'").startswith(("#", "data:")) for link, style in asked)


def test_whatever_runs_are_called_the_page_says_it_and_does_nothing_else(
    tmp_path: Path, three_arms: list[Config]
) -> None:
    nasty = "<script>alert(1)</script>&_%$#{}\\"
    for config in three_arms:
        leave(tmp_path / "runs", result(replace(config, task=replace(config.task, name=nasty.replace("/", "")))))
    write(gather(tmp_path / "runs"), Report(rows=["task", "seed"]), "", tmp_path / "out")

    page, latex = ((tmp_path / "out" / name).read_text() for name in ("report.html", "report.tex"))
    assert "<script>alert" not in page
    assert page.count("<script") == 1
    assert not re.search(
        r"(?<!\\)[#$]", "\n".join(line for line in latex.splitlines() if not line.startswith("%")).replace(r"$\pm$", "")
    )


def test_latex_is_one_booktabs_table_a_pivot(study: Path, tmp_path: Path) -> None:
    write(gather(study), Report(rows="seed", columns=["method", "arm"]), "", tmp_path / "out")

    latex = (tmp_path / "out/report.tex").read_text()
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{lrrr}", r"\end{tabular}"):
        assert latex.count(rule) >= 1
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in rows} <= {2, 3}


def test_what_is_in_order_raises_no_doubt(study: Path, three_arms: list[Config]) -> None:
    third = [replace(config, seed=2) for config in three_arms[:3]]
    for config in third:
        leave(study, result(config), np.arange(200) % 4 > 0)

    assert doubts(study) == {}


@pytest.mark.parametrize(
    ("title", "difference"),
    [
        ("Hardware", {"host": "elsewhere"}),
        ("Versions", {"packages": {"er": "0.2.0"}}),
        ("Source", {"commit": "def-dirty"}),
        ("Baselines", {"host": "elsewhere"}),
    ],
)
def test_mixed_runs_and_missing_baselines_are_doubts(
    study: Path, three_arms: list[Config], title: str, difference: dict[str, Any]
) -> None:
    assert title not in doubts(study)
    leave(study / "elsewhere", result(three_arms[2], **difference))

    assert title in doubts(study)


def test_recycled_runs_that_differ_from_frozen_ones_are_a_doubt(study: Path, three_arms: list[Config]) -> None:
    assert "Exactness" not in doubts(study)
    leave(study, result(three_arms[2], score=0.123))

    assert doubts(study)["Exactness"].startswith("1 of 2")


def test_speedups_that_scatter_over_the_seeds_are_a_doubt(study: Path, three_arms: list[Config]) -> None:
    assert "Clocks" not in doubts(study)
    slow = result(three_arms[2])
    leave(study, replace(slow, seconds=slow.seconds | {"train": 35.0}))

    assert "only" in doubts(study)["Clocks"]


def rows_of_page(page: Path) -> list[dict[str, str]]:
    (table,) = re.findall(r'<table id="runs">(.*?)</table>', page.read_text(), flags=re.DOTALL)
    heads = re.findall(r'<button type="button">(.*?)</button>', table)
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(<td.*?)</tr>", table)]
    return [dict(zip(heads, row, strict=True)) for row in rows]


def test_cells_of_what_is_not_known_are_empty(tmp_path: Path, three_arms: list[Config]) -> None:
    tuned, _, recycled = three_arms[:3]
    leave(tmp_path / "runs", result(tuned))
    leave(tmp_path / "runs/elsewhere", result(recycled, host="elsewhere"))
    leave(tmp_path / "runs", replace(result(recycled, metrics={}), tokens_s={}, memory={}))
    write(gather(tmp_path / "runs"), Report(), "", tmp_path / "out")

    base, alone, unscored = rows_of_page(tmp_path / "out/report.html")
    if alone["host"] == "here":
        alone, unscored = unscored, alone
    assert (base["score %"], base["warm %"], base["train tokens/s"], base["peak MB"]) == ("80.0", "", "10,000", "2,000")
    assert (alone["score %"], alone["warm %"], alone["cold %"], alone["even after"]) == ("80.0", "", "", "")
    assert (unscored["score %"], unscored["warm %"]) == ("", "167")
    assert (unscored["train tokens/s"], unscored["peak MB"]) == ("", "")


def test_the_page_says_what_its_methods_and_its_score_are(study: Path, tmp_path: Path) -> None:
    write(gather(study), Report(), "", tmp_path / "out")

    page = (tmp_path / "out/report.html").read_text()
    assert "<b>finetune</b>: Everything trains, nothing is recycled: the baseline of every speedup." in page
    assert "<b>Score</b>: accuracy on the test split" in page


@pytest.mark.parametrize("path", sorted((CONF / "method").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_method_is_explained_in_a_sentence(path: Path) -> None:
    (said,) = explained([path.stem]).values()

    assert 20 < len(said) < 200
    assert said.endswith(".") and "#" not in said


def test_a_single_seed_and_missing_scores_are_doubts(tmp_path: Path, three_arms: list[Config]) -> None:
    for config in three_arms[:3]:
        leave(tmp_path, result(config, metrics={}))

    assert {"Seeds", "No score"} <= doubts(tmp_path).keys()


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


@pytest.mark.slow
def test_a_thousand_runs_take_seconds_and_five_hundred_a_small_page(
    tmp_path: Path, three_arms: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    for count in (500, 1000):
        many(tmp_path / f"runs{count}", three_arms, count)
        before = spent()
        done = er_report(tmp_path, f"paths.runs={tmp_path}/runs{count}")
        seconds = spent() - before
        size = (tmp_path / f"runs{count}/report.html").stat().st_size / 1e6
        with capsys.disabled():
            sys.stdout.write(f"\n{count} runs: {seconds:.1f} s of CPU time, page {size:.2f} MB\n")

        assert done.returncode == 0, done.stderr
        assert size < 3
        assert seconds < 10


def spent() -> float:
    """Return the CPU time of all commands so far: what a busy machine does not change."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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


def test_recycled_runs_are_compared_with_frozen_ones_that_differ_in_nothing_else(
    study: Path, three_arms: list[Config]
) -> None:
    frozen = three_arms[1]
    for lr in (0.1, 0.2, 0.3):
        leave(study, result(replace(frozen, optim=replace(frozen.optim, lr=lr)), score=0.123))

    assert "Exactness" not in doubts(study)


def test_several_finetune_settings_are_a_doubt(study: Path, three_arms: list[Config]) -> None:
    assert "Several baselines" not in doubts(study)
    tuned = three_arms[0]
    leave(study, result(replace(tuned, optim=replace(tuned.optim, lr=0.5))))

    assert "lr=0.5" in doubts(study)["Several baselines"]


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


@pytest.mark.parametrize(("letter", "written"), [("^", r"\textasciicircum{}"), ("~", r"\textasciitilde{}")])
def test_latex_takes_no_letter_for_a_command(
    tmp_path: Path, three_arms: list[Config], letter: str, written: str
) -> None:
    for name in ("b", f"a{letter}b"):
        for config in three_arms[:3]:
            leave(tmp_path / "runs", result(replace(config, task=replace(config.task, name=name))))
    write(gather(tmp_path / "runs"), Report(), "", tmp_path / "out")

    assert f"a{written}b" in (tmp_path / "out/report.tex").read_text()


def test_fewer_figures_than_none_are_refused(tmp_path: Path) -> None:
    done = er_report(tmp_path, "report.figures=-1")

    assert (done.returncode, "report.figures=-1: must be at least 0" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr
