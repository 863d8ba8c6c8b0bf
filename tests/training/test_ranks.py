"""Several processes train a run as one would: the same batches, the same gradients, every file once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from er.config import Config
from er.errors import UserError
from er.results import read
from er.tasks import IGNORED
from er.testing import tiny_checkpoint
from er.training.data import Split, TokenLabels, Tokens
from er.training.heads import LOSSES, within
from er.training.run import run

Small = Callable[..., Config]

OUTPUTS = 5


def labels(head: str, lengths: list[int]) -> torch.Tensor | TokenLabels:
    """Some of them ignored, and in some rows all."""
    random = np.random.default_rng(0)
    if head == "token":
        rows = [random.integers(OUTPUTS, size=length) for length in lengths]
        return TokenLabels([np.where(random.random(len(row)) < 0.1 * i, IGNORED, row) for i, row in enumerate(rows)])
    if head == "span":
        ends = torch.tensor([[random.integers(length) for _ in range(2)] for length in lengths])
        ends[1, 0] = ends[3] = IGNORED
        return ends
    found = torch.tensor(random.integers(OUTPUTS, size=len(lengths)))
    found[2] = IGNORED
    return found


def logits(head: str, batch: dict[str, Any], weight: torch.Tensor) -> torch.Tensor:
    """Return what a model might say of a batch, row by row."""
    hidden = torch.nn.functional.embedding(batch["inputs"]["input_ids"], weight)
    ends = within(hidden[..., :2], batch["inputs"]["attention_mask"])
    return {"sequence": hidden[:, 0], "token": hidden, "span": ends}[head]


@pytest.mark.parametrize("head", LOSSES)
@pytest.mark.parametrize("world", [2, 3, 11])
def test_the_mean_gradient_of_all_ranks_is_that_of_the_whole_batch(head: str, world: int) -> None:
    lengths = [3, 9, 5, 7, 7, 4, 6]
    ids = [np.arange(length) + 3 * i for i, length in enumerate(lengths)]
    split = Split(Tokens({"input_ids": ids}, 0), labels(head, lengths))
    weight = torch.randn(40, OUTPUTS, dtype=torch.float64, requires_grad=True)
    rows = [6, 2, 0, 3, 1, 5, 4]

    whole = split.batch(rows)
    LOSSES[head](logits(head, whole, weight), whole["labels"]).backward()
    assert weight.grad is not None
    expected, weight.grad = weight.grad, None
    for rank in range(world):
        part = split.share(rows, rank, world)
        (world * LOSSES[head](logits(head, part, weight), part["labels"], part["whole"]) / world).backward()

    torch.testing.assert_close(weight.grad, expected)


@pytest.fixture
def undisturbed(tmp_path: Path) -> Path:
    """An encoder without dropout, which each rank would draw for itself."""
    nothing: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return tiny_checkpoint(tmp_path / "undisturbed", layers=4, **nothing)


def test_two_processes_give_what_one_gives_and_build_each_entry_once(
    small: Small, undisturbed: Path, tmp_path: Path
) -> None:
    # 96 and 24 examples in batches of 23: both the last batches and the parts are uneven
    options = ["method=reduced", f"model.path={undisturbed}", "optim.batch_size=23", "optim.patience=1", "logger=csv"]
    one = run(small(*options, f"paths.runs={tmp_path}/one", f"paths.cache={tmp_path}/alone"))
    two = run(small(*options, f"paths.runs={tmp_path}/two", "trainer.devices=2"))

    assert (two.run_id, two.steps, two.config["trainer"]["devices"]) == (one.run_id, one.steps, 2)
    assert two.env["device"] == "2 x cpu"
    assert two.metrics == pytest.approx(one.metrics, abs=1e-5)
    assert [epoch["dev/loss"] for epoch in two.history] == pytest.approx(
        [epoch["dev/loss"] for epoch in one.history], abs=1e-5
    )
    weights, others = (load_file(only(tmp_path / name, "weights.safetensors")) for name in ("one", "two"))
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, atol=1e-4, rtol=0)
    assert one.cache is not None and two.cache is not None
    same = ("space", "hits", "misses", "bytes")
    assert [two.cache[name] for name in same] == [one.cache[name] for name in same]
    assert len(list((tmp_path / "cache" / two.cache["space"]).glob("*.safetensors"))) > 1
    files = [sorted(path.name for path in (tmp_path / name).rglob("*")) for name in ("one", "two")]
    assert files[0] == files[1]
    losses = [only(tmp_path / name, "metrics.csv").read_text() for name in ("one", "two")]
    assert trained(losses[1]) == pytest.approx(trained(losses[0]), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["adapters", "bitfit", "cross_model", "finetune", "probe", "reduced_adapters"])
def test_every_method_trains_in_two_processes(small: Small, method: str) -> None:
    two = run(small(f"method={method}", "trainer.devices=2"))

    assert two.steps == 2 * 12
    assert two.metrics["test/accuracy"] > 0


@pytest.mark.slow
def test_a_mistake_is_told_once_and_leaves_nothing(small: Small, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="max_bytes"):
        run(small("cache.max_bytes=1KB", "trainer.devices=2"))
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]


def command(config: Config, *more: str) -> list[str]:
    """Return the command line of such a run, which takes long enough to be disturbed."""
    paths = [f"paths.cache={config.paths.cache}", f"paths.runs={config.paths.runs}"]
    model, task = f"model.path={config.model.path}", f"task.path={config.task.path}"
    quick = ["trainer=cpu", "trainer.progress=false", "trainer.checkpoint_s=0", "optim.batch_size=4", "optim.lr=1e-3"]
    options = ["model=hf", model, "task=classification", task, "method=reduced", "trainer.devices=2", *quick, *paths]
    return [sys.executable, "-m", "er", "train", *options, *more]


def ranks_of(parent: int) -> list[int]:
    """Return the processes that train, of those that a command has started."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def started(process: subprocess.Popen[Any], runs: Path) -> list[int]:
    """Wait until a run has left its first checkpoint."""
    while not list(runs.rglob("last.ckpt")):
        assert process.poll() is None
        time.sleep(0.02)
    return ranks_of(process.pid)


def gone(processes: list[int]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(Path(f"/proc/{each}").exists() for each in processes):
        time.sleep(0.1)
    return not any(Path(f"/proc/{each}").exists() for each in processes)


LINUX = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes as Linux shows them")


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_ends_the_run_with_one_error_and_no_orphans(small: Small, tmp_path: Path, rank: int) -> None:
    long = command(small(), "optim.epochs=500", "optim.patience=null")
    process = subprocess.Popen(long, stderr=subprocess.PIPE, text=True)
    processes = started(process, tmp_path / "runs")
    assert len(processes) == 2

    os.kill(processes[rank], signal.SIGKILL)
    _, said = process.communicate(timeout=60)

    assert process.returncode == 1
    assert said.count("Traceback") == 1 and f"process {rank} terminated with signal SIGKILL" in said
    assert gone(processes)
    assert "SIGKILL" in json.loads(only(tmp_path / "runs", "failed.json").read_text())["error"]


@LINUX
@pytest.mark.slow
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(small: Small, tmp_path: Path) -> None:
    epochs = ["optim.epochs=6", "optim.patience=null"]
    undisturbed = subprocess.run(command(small(), *epochs, f"paths.runs={tmp_path}/whole"), check=False)
    process = subprocess.Popen(command(small(), *epochs))
    processes = started(process, tmp_path / "runs")

    process.kill()
    process.wait()
    assert gone(processes)
    assert not list((tmp_path / "runs").rglob("result.json"))
    resumed = subprocess.run(command(small(), *epochs), check=False)

    assert (undisturbed.returncode, resumed.returncode) == (0, 0)
    results = [read(only(tmp_path / name, "result.json")) for name in ("whole", "runs")]
    assert results[0].history == results[1].history
    assert results[0].metrics == results[1].metrics


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_end_takes_its_ranks_with_it(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    long = command(small(), "optim.epochs=500", "optim.patience=null")
    process = subprocess.Popen(long, stderr=subprocess.PIPE, text=True)
    processes = started(process, tmp_path / "runs")

    process.send_signal(number)
    _, said = process.communicate(timeout=60)

    assert process.returncode == 128 + number and "Traceback" not in said
    assert gone(processes)
    assert not list((tmp_path / "temporary").glob("er-ranks-*"))


@pytest.mark.slow
def test_a_sweep_trains_each_run_in_two_processes(small: Small, tmp_path: Path) -> None:
    done = subprocess.run([*command(small(), "optim.epochs=1", "seed=0,1"), "-m"], check=False)

    assert done.returncode == 0
    results = [read(path) for path in (tmp_path / "runs").rglob("result.json")]
    assert sorted(result.config["seed"] for result in results) == [0, 1]
    assert {result.env["device"] for result in results} == {"2 x cpu"}


def only(folder: Path, name: str) -> Path:
    (path,) = folder.rglob(name)
    return path


def trained(metrics: str) -> list[float]:
    """The training loss of every epoch."""
    names, *rows = [line.split(",") for line in metrics.splitlines()]
    return [float(row[names.index("train/loss")]) for row in rows if row[names.index("train/loss")]]
