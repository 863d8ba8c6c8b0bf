"""A report is whole: tables, figures and a page that needs nothing beside it."""

from __future__ import annotations

import itertools
import os
import re
import resource
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from er.config import CONF, Config, Report
from er.reporting.gather import gather
from er.reporting.glossary import explained
from er.reporting.write import write
from tests.reporting.studies import leave, many, result

FILES = ["report.html", "report.md", "report.tex", "runs.csv", "runs.parquet"]


def er_report(cwd: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "er", "report", *overrides]
    return subprocess.run(command, cwd=cwd, env=os.environ, capture_output=True, text=True, timeout=120)


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
