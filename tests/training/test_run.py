"""A run does what its configuration says, once, and the cache changes nothing but the time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from safetensors.torch import load_file

from er.config import CONF, Config
from er.errors import UserError
from er.results import Result, read
from er.training.run import run

Train = Callable[..., Result]
Small = Callable[..., Config]

METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
RECYCLING = ["reduced", "reduced_adapters", "probe"]


def directory(result: Result, tmp_path: Path) -> Path:
    (path,) = tmp_path.rglob(f"*-{result.run_id}")
    return path


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_leaves_a_complete_record(train: Train, tmp_path: Path, method: str) -> None:
    result = train(f"method={method}", "optim.epochs=3")

    folder = directory(result, tmp_path)
    assert read(folder / "result.json") == result
    assert sorted(path.name for path in folder.iterdir()) == [
        "details.json",
        "predictions.jsonl",
        "result.json",
        "weights.safetensors",
    ]
    assert {"test/accuracy", "test/macro_f1", "dev/loss"} <= set(result.metrics)
    assert set(result.seconds) == {"build", "read", "train", "evaluate"}
    assert all(seconds >= 0 for seconds in result.seconds.values())
    assert result.steps == 3 * 12  # 96 examples in batches of 8
    assert (result.cache is not None) == result.config["method"]["recycles"]
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    right = [row["prediction"] == row["label"] for row in map(json.loads, lines)]
    assert sum(right) / len(right) == pytest.approx(result.metrics["test/accuracy"])


@pytest.mark.parametrize("head", ["linear", "stock"])
@pytest.mark.parametrize("method", RECYCLING)
def test_the_cache_changes_nothing_but_the_time(train: Train, tmp_path: Path, method: str, head: str) -> None:
    # Adam makes a step of the learning rate out of the rounding of a gradient that is nearly zero: so a small rate.
    options = [f"method={method}", f"method.head={head}", "optim.lr=1e-4"]
    on, off = train(*options, "cache.mode=on"), train(*options, "cache.mode=off")

    assert on.run_id != off.run_id
    assert on.metrics == pytest.approx(off.metrics, abs=1e-5)
    cached, recomputed = (load_file(directory(r, tmp_path) / "weights.safetensors") for r in (on, off))
    assert cached.keys() == recomputed.keys()
    for name, weight in cached.items():
        torch.testing.assert_close(weight, recomputed[name], atol=1e-4, rtol=0)


def test_what_is_done_is_not_done_again(train: Train, tmp_path: Path) -> None:
    first = train()
    before = files(tmp_path)

    assert train() == first
    assert files(tmp_path) == before


def test_on_done_decides(train: Train) -> None:
    first = train()

    with pytest.raises(UserError, match="on_done"):
        train("on_done=error")
    again = train("on_done=overwrite")
    assert again.run_id == first.run_id
    assert again.metrics == first.metrics
    assert again.cache is not None
    assert again.cache["misses"] == 0


def test_tasks_and_methods_share_activations(train: Train) -> None:
    first, second = train("method=reduced", "seed=0"), train("method=reduced_adapters", "seed=1")

    assert first.cache is not None and second.cache is not None
    assert first.cache["space"] == second.cache["space"]
    assert first.cache["misses"] > 0
    assert second.cache["misses"] == 0
    assert second.cache["cost"] == pytest.approx(first.cache["cost"])


def test_more_examples_build_only_what_is_missing(train: Train) -> None:
    few, all_ = train("task.limit=40"), train()

    assert few.cache is not None and all_.cache is not None
    assert all_.cache["hits"] == few.cache["misses"]


def test_an_edited_text_is_another_run(train: Train, words: Path) -> None:
    first = train()
    file = words / "train.jsonl"
    file.write_text(file.read_text().replace("cat", "kitten"))

    assert train().run_id != first.run_id


class Killed(RuntimeError):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize("patience", [1, "null"])
@pytest.mark.parametrize(("epoch", "step"), [(1, 0), (2, 5)])
def test_an_interrupted_run_ends_with_the_weights_of_an_undisturbed_one(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int, step: int, patience: int | str
) -> None:
    four = ["optim.epochs=4", f"optim.patience={patience}"]
    undisturbed = run(small(*four, f"paths.runs={tmp_path}/whole"))

    def kill(self: Any, trainer: Any, module: Any, batch: Any, index: int) -> None:
        if (trainer.current_epoch, index) == (epoch, step):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Callback, "on_train_batch_start", kill)
        with pytest.raises(Killed):
            run(small(*four, "trainer.checkpoint_s=0"))
    assert not list((tmp_path / "runs").rglob("result.json"))
    assert_the_same(run(small(*four)), undisturbed, tmp_path)


def assert_the_same(resumed: Result, undisturbed: Result, tmp_path: Path) -> None:
    assert resumed.metrics == undisturbed.metrics
    assert resumed.history == undisturbed.history
    assert resumed.steps == undisturbed.steps
    left = load_file(directory(resumed, tmp_path / "runs") / "weights.safetensors")
    for name, weight in load_file(directory(undisturbed, tmp_path / "whole") / "weights.safetensors").items():
        assert torch.equal(left[name], weight)


def test_a_seed_decides_everything(train: Train) -> None:
    first, same, other = train("on_done=overwrite"), train("on_done=overwrite"), train("seed=1")

    assert first.metrics == same.metrics
    assert other.metrics != first.metrics


@pytest.mark.parametrize(("monitor", "watched", "best"), [("loss", "dev/loss", min), ("score", "dev/macro_f1", max)])
def test_the_best_epoch_is_kept_and_patience_ends_training(
    train: Train, monitor: str, watched: str, best: Callable[[list[float]], float]
) -> None:
    result = train("optim.lr=0.3", "optim.epochs=30", "optim.patience=1", f"optim.monitor={monitor}")

    seen = [epoch[watched] for epoch in result.history]
    assert len(seen) < 30
    assert result.metrics[watched] == best(seen)
    assert result.metrics["epoch"] == seen.index(best(seen))


def test_caching_embeddings_is_refused(train: Train, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cut=0"):
        train("method=reduced", "cut=0")
    assert not (tmp_path / "runs").exists()

    assert train("method=reduced", "cut=0", "cache.mode=off").identity["cut"] == 0


def test_a_crash_leaves_why_and_the_next_run_clears_it(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("er.training.run.fit", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train()
    (left,) = (tmp_path / "runs").rglob("failed.json")
    assert "ZeroDivisionError" in json.loads(left.read_text())["traceback"]

    train()
    assert not left.exists()


def test_a_finished_run_stays_until_another_takes_its_place(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = directory(train(), tmp_path) / "result.json"
    before = result.read_bytes()
    monkeypatch.setattr("er.training.run.fit", lambda *_: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        train("on_done=overwrite")
    assert result.read_bytes() == before


def test_runs_that_cannot_be_written_are_refused_before_any_work(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("er.training.run.fit", lambda *_: pytest.fail("it trained"))

    with pytest.raises(UserError, match=r"paths\.runs"):
        train(f"paths.runs={tmp_path / 'file'}")


def test_a_refused_run_leaves_no_folder(train: Train, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match=r"task\.max_length"):
        train("task.max_length=0")

    assert list((tmp_path / "runs").iterdir()) == []


def test_epochs_are_not_chosen_by_what_dev_cannot_tell(train: Train, tmp_path: Path) -> None:
    folder = tmp_path / "tagged"
    folder.mkdir()
    for split, tag in {"train": "B-x", "dev": "O", "test": "B-x"}.items():
        (folder / f"{split}.conll").write_text(f"cat\t{tag}\n\n")
    own = ["task=tagging", f"task.path={folder}"]

    with pytest.raises(UserError, match=r"optim\.monitor=score: there is no entity_f1"):
        train(*own, "optim.monitor=score")
    assert "dev/entity_f1" not in train(*own, "optim.epochs=1").metrics


def test_hardware_that_is_not_to_be_had_is_refused(train: Train) -> None:
    with pytest.raises(UserError, match=r"trainer\.accelerator"):
        train("trainer.accelerator=tpux")
