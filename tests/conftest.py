"""What all tests share: compose configurations in-process, on tiny models and a tiny task on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from er.checks import settings
from er.config import CONF, Config
from er.results import Result
from er.testing import tiny_checkpoint
from er.training.run import run

WORDS = {"animal": ["cat", "dog", "horse", "cow"], "tool": ["hammer", "saw", "drill", "file"]}


@pytest.fixture(autouse=True)
def _quiet_and_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on what the user has set, and none reaches for a hub."""
    for name in ("ER_CACHE", "ER_RUNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny models are faster without threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def composed() -> Callable[..., Config]:
    """Compose and check a configuration as `er train` would."""

    def compose_train(*overrides: str) -> Config:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return settings(compose("train", overrides=list(overrides)))

    return compose_train


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """Write a task that a tiny model learns: is the word an animal or a tool?"""
    folder = tmp_path / "words"
    folder.mkdir()
    for split, repeats in {"train": 12, "dev": 3, "test": 3}.items():
        rows = [
            {"text": f"{'the ' * (i % 5)}{word} is here {split} {i}", "label": label}
            for label, words in WORDS.items()
            for word in words
            for i in range(repeats)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def real_data() -> Path:
    """Return the folder of real data sets, where there is one."""
    if "ER_DATA" not in os.environ:
        pytest.skip("ER_DATA names no folder of data sets")
    return Path(os.environ["ER_DATA"])


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
