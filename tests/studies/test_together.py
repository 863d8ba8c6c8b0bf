"""Runs that are done together have, bit by bit, the results that they would have alone, and read each batch once."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict
from pytorch_lightning import Callback
from safetensors.torch import load_file

from er import timing
from er.cache import ActivationCache, build
from er.config import CONF, Config
from er.results import Result, read
from er.studies.together import alike, run_together
from er.timing import Stopwatch
from er.training.run import run
from er.training.turns import hand_over, in_turns
from tests.offline import sent

Small = Callable[..., Config]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the rows of every batch that is read from a cache."""
    seen: list[int] = []
    before = ActivationCache.read

    def counted(self: ActivationCache, where: Any, *rest: Any) -> torch.Tensor:
        seen.append(len(where))
        return before(self, where, *rest)

    monkeypatch.setattr(ActivationCache, "read", counted)
    return seen


@contextmanager
def as_hydra_does(*overrides: str) -> Iterator[None]:
    """Say which job this is."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        said = compose("train", list(overrides), return_hydra_config=True)
    said.hydra.overrides.task = list(overrides)
    with open_dict(said):
        said.hydra.mode = RunMode.MULTIRUN
    OmegaConf.set_readonly(said.hydra, True)
    HydraConfig.instance().set_config(said)
    yield
    HydraConfig.instance().cfg = None


def the_same(one: Result, other: Result, folders: list[Path]) -> bool:
    weights = [load_file(next(folder.rglob(f"*-{one.run_id}/weights.safetensors"))) for folder in folders]
    said = [next(folder.rglob(f"*-{one.run_id}/predictions.jsonl")).read_text() for folder in folders]
    assert said[0] == said[1]
    assert one.metrics == other.metrics and one.history == other.history and one.steps == other.steps
    return all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


def test_heads_of_several_rates_and_seeds_give_what_each_gives_alone_from_one_read(
    small: Small, tmp_path: Path, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # many segments, which the first run finds in another order than those for whom they are there already
    monkeypatch.setattr("er.training.recycle.build", lambda *all, **o: build(*all, **o | {"segment_bytes": 10_000}))
    rates, others = ["1e-3", "3e-1"], [["seed=0", "method=reduced"], ["seed=1", "method=reduced_adapters"]]
    points = [[f"optim.lr={rate}", *other] for rate in rates for other in others]  # some of them stop early
    common = ["optim.order=0", "optim.epochs=5", "optim.patience=1"]
    alone = [run(small(*point, *common, f"paths.runs={tmp_path}/alone")) for point in points]
    longest = max(len(result.history) for result in alone)
    assert longest > min(len(result.history) for result in alone)
    reads.clear()

    configs = [small(*point, *common, f"paths.cache={tmp_path}/fresh") for point in points]
    together = run_together(configs)

    assert len(set(map(alike, configs))) == 1
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Result)
        assert one.run_id == other.run_id and one.env["together"] == len(points)
        assert the_same(one, other, [tmp_path / "runs", tmp_path / "alone"])
        assert read(next((tmp_path / "runs").rglob(f"*-{one.run_id}/result.json"))) == one
    batches = 12 + 3
    # every run tests once, when it ends: those that end at the same time together
    assert longest * batches <= len(reads) - 3 <= longest * batches + 3 * len(points)


def test_one_that_fails_stops_no_other(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Any, trainer: Any, module: Any, batch: Any, index: int) -> None:
        if module.optim.lr == 0.5 and trainer.global_step == 5:
            raise RuntimeError("nothing but this one")

    alone = run(small("seed=1", f"paths.runs={tmp_path}/alone"))
    monkeypatch.setattr(Callback, "on_train_batch_start", failing)

    with as_hydra_does("optim.lr=0.5", "points=both"):
        first, second = run_together([small("optim.lr=0.5"), small("seed=1")], [["optim.lr=0.5"], ["seed=1"]])

    assert isinstance(first, RuntimeError)
    assert isinstance(second, Result)
    assert the_same(second, alone, [tmp_path / "runs", tmp_path / "alone"])
    (left,) = (tmp_path / "runs").rglob("failed.json")
    assert json.loads(left.read_text())["command"] == "er train optim.lr=0.5"


@pytest.mark.filterwarnings("default")  # wandb's own
def test_each_has_its_own_run_at_wandb(small: Small, tmp_path: Path) -> None:
    for each in run_together([small(f"seed={seed}", "logger=wandb", "optim.epochs=1") for seed in (0, 1)]):
        assert isinstance(each, Result)
        (file,) = tmp_path.rglob(f"run-{each.run_id}.wandb")
        assert sent(file).summary["metrics/test/loss"] == pytest.approx(each.metrics["test/loss"])
        assert sent(file).exit_code == 0


def test_what_is_alike_does_not_depend_on_what_is_learned_nor_how(small: Small) -> None:
    key = alike(small("method=reduced", "cut=2"))

    for same in ("optim.lr=1", "seed=3", "method=reduced_adapters", "optim.epochs=9", "task.label=other"):
        assert alike(small("method=reduced", "cut=2", same)) == key
    for other in ("cut=3", "optim.batch_size=3", "cache.dtype=float16", "cache.mode=off", "trainer.devices=2"):
        assert alike(small("method=reduced", "cut=2", other)) != key


def test_an_interrupted_turn_ends_all_and_restores_what_was(small: Small, tmp_path: Path) -> None:
    ended: list[str] = []

    def waiting() -> None:
        try:
            while True:
                hand_over()
        finally:
            ended.append("the other")

    def interrupted() -> None:
        hand_over()
        torch.manual_seed(5)
        raise KeyboardInterrupt

    before = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        in_turns([waiting, interrupted])

    assert ended == ["the other"]
    assert torch.equal(torch.get_rng_state(), before)


def test_each_turn_has_its_own_random_numbers_gradients_and_handlers() -> None:
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(1)), float(np.random.rand()), random.random()

    def seeded(seed: int) -> list[Any]:
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        signal.signal(signal.SIGUSR2, lambda *_: seed)
        drawn = []
        for _ in range(3):
            drawn.append(draw())
            with torch.set_grad_enabled(seed == 1):
                hand_over()
                assert torch.is_grad_enabled() == (seed == 1)
            handler: Any = signal.getsignal(signal.SIGUSR2)
            assert handler() == seed
        return drawn

    handler = signal.getsignal(signal.SIGUSR2)
    alone = [in_turns([lambda seed=seed: seeded(seed)])[0] for seed in (1, 2)]  # type: ignore[misc]
    both = in_turns([lambda: seeded(1), lambda: seeded(2)])

    assert both == alone
    assert signal.getsignal(signal.SIGUSR2) == handler


def test_a_clock_counts_no_others_time() -> None:
    clock, away = Stopwatch(), timing.away()

    def brief() -> None:
        with clock("work"):
            hand_over()

    def long() -> None:
        time.sleep(0.5)

    in_turns([brief, long])

    assert clock.seconds["work"] < 0.25
    assert timing.away() == away
