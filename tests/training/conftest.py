"""A tiny encoder on disk, and runs of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from er.config import Config
from er.results import Result
from er.testing import tiny_checkpoint
from er.training.run import run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("encoder") / "bert", layers=4)


@pytest.fixture
def small(composed: Callable[..., Config], words: Path, checkpoint: Path, tmp_path: Path) -> Callable[..., Config]:
    """Compose a run of a tiny encoder on a tiny task."""

    def compose_small(*overrides: str) -> Config:
        source = [f"method.source.model.path={checkpoint}"] if "method=cross_model" in overrides else []
        return composed(
            "model=hf",
            f"model.path={checkpoint}",
            "task=classification",
            f"task.path={words}",
            f"paths.cache={tmp_path}/cache",
            f"paths.runs={tmp_path}/runs",
            "trainer=cpu",
            "trainer.progress=false",
            "optim.epochs=2",
            "optim.batch_size=8",
            "optim.lr=1e-3",
            *overrides,
            *source,
        )

    return compose_small


@pytest.fixture
def train(small: Callable[..., Config]) -> Callable[..., Result]:
    """Compose such a run and do it."""
    return lambda *overrides: run(small(*overrides))
