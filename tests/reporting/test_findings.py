"""What a report opens with: what is in order, and what is a reason to doubt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from er.config import Config
from tests.reporting.studies import doubts, leave, result

FILES = ["report.html", "report.md", "report.tex", "runs.csv", "runs.parquet"]


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


def test_a_single_seed_and_missing_scores_are_doubts(tmp_path: Path, three_arms: list[Config]) -> None:
    for config in three_arms[:3]:
        leave(tmp_path, result(config, metrics={}))

    assert {"Seeds", "No score"} <= doubts(tmp_path).keys()


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
