"""A run that a scheduler interrupts saves first, and goes on as if nothing had been."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Callback

from er.config import Config
from er.training.run import run
from tests.training.test_run import assert_the_same

EPOCHS = "optim.epochs=3"
NEVER = "trainer.checkpoint_s=1e9"
Small = Callable[..., Config]


def requeue(number: int, frame: Any) -> None:
    """Do what submitit does: requeue the job, and end its process."""
    raise SystemExit(-1)


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make this process look like a job of submitit."""
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR2")
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    signal.signal(signal.SIGUSR2, requeue)
    signal.signal(signal.SIGTERM, lambda *_: None)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def sent(number: signal.Signals, hook: str, epoch: int, step: int = 0) -> Callable[..., None]:
    """Return a hook in the midst of which the signal arrives."""

    def send(self: Any, trainer: Any, module: Any, *rest: Any) -> None:
        index = rest[-1] if hook == "on_train_batch_start" else step
        if (trainer.current_epoch, index) == (epoch, step):
            os.kill(os.getpid(), number)

    return send


@pytest.mark.parametrize(
    ("hook", "epoch", "step"),
    [("on_train_batch_start", 1, 4), ("on_train_batch_start", 0, 11), ("on_validation_end", 1, 0)],
)
@pytest.mark.usefixtures("job")
def test_when_time_is_up_the_step_is_saved_before_the_job_is_requeued(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: str, epoch: int, step: int
) -> None:
    undisturbed = run(small(EPOCHS, NEVER, f"paths.runs={tmp_path}/whole"))

    with monkeypatch.context() as patch:
        patch.setattr(Callback, hook, sent(signal.SIGUSR2, hook, epoch, step))
        with pytest.raises(SystemExit):
            run(small(EPOCHS, NEVER))
    assert signal.getsignal(signal.SIGUSR2) is requeue
    assert list((tmp_path / "runs").rglob("last.ckpt"))
    assert not list((tmp_path / "runs").rglob("failed.json"))

    assert_the_same(run(small(EPOCHS, NEVER)), undisturbed, tmp_path)


@pytest.mark.usefixtures("job")
def test_a_job_that_is_about_to_be_killed_saves_and_stays(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    monkeypatch.setattr("er.training.requeue.STAY", 0)
    monkeypatch.setattr("er.training.record.Record._save", lambda self, trainer: saved.append(trainer.global_step))
    hook = "on_train_batch_start"
    monkeypatch.setattr(Callback, hook, sent(signal.SIGTERM, hook, epoch=1, step=4))

    assert run(small(EPOCHS, NEVER)).steps == 3 * 12
    assert saved[0] == 12 + 5


def test_outside_of_a_job_a_run_that_is_told_to_end_saves_and_ends(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = run(small(EPOCHS, NEVER, f"paths.runs={tmp_path}/whole"))
    hook = "on_train_batch_start"

    with monkeypatch.context() as patch:
        patch.setattr(Callback, hook, sent(signal.SIGTERM, hook, epoch=1, step=4))
        with pytest.raises(SystemExit) as ended:
            run(small(EPOCHS, NEVER))
        assert ended.value.code == 128 + signal.SIGTERM

    assert_the_same(run(small(EPOCHS, NEVER)), undisturbed, tmp_path)


def test_a_run_is_one_process_however_many_tasks_slurm_counts(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"JOB_ID": "1", "STEP_ID": "0", "NTASKS": "4", "PROCID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)

    assert run(small("optim.epochs=1")).steps == 12
