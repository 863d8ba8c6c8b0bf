"""Short runs at every cut: one pass through the layers feeds them, and none is done twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from er import results
from er.commands.search_cut import report
from er.config import Config
from er.errors import UserError
from er.studies.search import FOLDER, search

Small = Callable[..., Config]

DEPTH = 4


def kept(tmp_path: Path) -> list[results.Result]:
    return [results.read(path) for path in (tmp_path / "runs" / FOLDER).rglob(results.NAME)]


@pytest.mark.parametrize(("method", "deepest"), [("reduced", DEPTH), ("reduced_adapters", DEPTH - 1)])
def test_every_cut_is_probed_from_one_pass(small: Small, tmp_path: Path, method: str, deepest: int) -> None:
    found = search(small(f"method={method}", "search.epochs=1", "search.examples=24"))

    assert [each.k for each in found] == list(range(deepest + 1))
    done = kept(tmp_path)
    built = {result.identity["cut"]: result.cache and result.cache["misses"] for result in done}
    assert built == {0: None} | dict.fromkeys(range(1, deepest + 1), 0)
    assert {result.identity["task"]["limit"] for result in done} == {24}


def test_a_search_goes_on_where_it_was_left(small: Small, tmp_path: Path) -> None:
    config = small("method=reduced", "search.epochs=1", "search.cuts=[1,0.5]")
    first = search(config)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob(results.NAME)}

    assert search(config) == first
    assert [each.k for each in first] == [0, 1, 2]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob(results.NAME)} == times


def test_the_report_names_a_cut(small: Small) -> None:
    config = small("method=reduced", "search.epochs=1", "search.cuts=[1]", "search.loss=100")

    assert "cut=1" in report(config, search(config))


@pytest.mark.parametrize(
    ("option", "said"),
    [("method=finetune", "method=finetune"), ("search.cuts=[5]", "cut=5"), ("search.cuts=[0]", "1..4")],
)
def test_what_has_no_cut_is_refused(small: Small, option: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        search(small("method=reduced", option))
