"""What the tests of reports share: configurations as `er train` composes them, and a small study on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from er.config import Config
from tests.reporting.studies import arms, leave, result


@pytest.fixture
def three_arms(composed: Callable[..., Config], tmp_path: Path) -> list[Config]:
    """Three arms of two seeds."""
    methods = {name: composed(f"method={name}", f"paths.runs={tmp_path}/runs") for name in ("finetune", "reduced")}
    return arms(methods["finetune"], methods, seeds=2)


@pytest.fixture
def study(three_arms: list[Config], tmp_path: Path) -> Path:
    """Leave a study of three arms and two seeds; recycled and frozen runs are a little worse, and equal."""
    for config in three_arms:
        share = 0.9 if config.method.name == "finetune" else 0.7
        right = np.random.default_rng(config.seed).random(200) < share
        leave(tmp_path / "runs", result(config, score=float(right.mean())), right)
    return tmp_path / "runs"
