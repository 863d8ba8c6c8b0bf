"""What a run says of its own effort: tokens a second, memory, and bars that fill up."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tqdm import tqdm

from er import memory
from er.config import Config
from er.results import Result
from er.tasks import load_task
from er.training import loop
from er.training.run import run, tokenized

Train = Callable[..., Result]
Small = Callable[..., Config]


@pytest.mark.parametrize("method", ["finetune", "reduced"])
def test_tokens_a_second_are_those_of_the_texts_over_the_time_they_took(small: Small, method: str) -> None:
    config = small(f"method={method}", "optim.epochs=3")
    result = run(config)

    texts = {name: sum(split.tokens.lengths) for name, split in tokenized(config, load_task(config.task, None)).items()}
    seconds = result.seconds
    assert result.tokens_s["train"] * (seconds["train"] + seconds["read"]) == pytest.approx(3 * texts["train"])
    assert result.tokens_s["evaluate"] * seconds["evaluate"] == pytest.approx(3 * texts["dev"] + texts["test"])


def test_the_peak_of_memory_is_of_this_run_alone() -> None:
    cpu = torch.device("cpu")
    memory.reset(cpu)
    before = memory.peaks(cpu)["rss"]
    held = torch.ones(50_000_000)
    during = memory.peaks(cpu)["rss"]
    del held

    assert during - before == pytest.approx(200e6, rel=0.2)
    assert memory.peaks(cpu)["rss"] == pytest.approx(during, rel=0.01)
    if not (memory.PROCESS / "clear_refs").exists():
        pytest.skip("only Linux forgets a peak")
    memory.reset(cpu)
    assert memory.peaks(cpu)["rss"] < during - 150e6


def test_each_phase_has_a_bar_that_fills_up(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[tqdm[Any]] = []

    def noted(**options: Any) -> tqdm[Any]:
        bars.append(tqdm(**options | {"file": io.StringIO(), "mininterval": 0, "delay": 0}))
        return bars[-1]

    monkeypatch.setattr(loop, "progress_bar", noted)
    train("trainer.progress=true", "optim.epochs=2")

    assert [bar.desc for bar in bars] == ["train", "evaluate dev", "evaluate dev", "evaluate test"]
    assert [bar.n for bar in bars] == [bar.total for bar in bars] == [24, 3, 3, 3]
