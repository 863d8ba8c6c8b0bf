from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from er.timing import Stopwatch
from er.training.ahead import AHEAD, Ahead

BATCHES = [[0, 1], [5], [2, 3, 4], [6]]


def loader(
    collate: Callable[[list[int]], Any] = torch.tensor, ahead: int = AHEAD, clock: Stopwatch | None = None
) -> Ahead:
    rows: Any = range(7)
    return Ahead(rows, batch_sampler=BATCHES, collate_fn=collate, clock=clock or Stopwatch(), phase="read", ahead=ahead)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("batches-ahead")]


@pytest.mark.parametrize("ahead", [0, 1, AHEAD, 9])
def test_batches_come_in_order_however_many_are_ahead(ahead: int) -> None:
    batches = loader(ahead=ahead)

    for _ in range(2):
        assert [batch.tolist() for batch in batches] == BATCHES
    assert len(batches) == len(BATCHES)
    assert not threads()


@pytest.mark.parametrize("ahead", [0, AHEAD])
def test_every_batch_is_fetched_once_in_order_and_before_its_turn(ahead: int) -> None:
    told: list[list[int]] = []
    rows: Any = range(7)
    clock = Stopwatch()
    batches = Ahead(
        rows, batch_sampler=BATCHES, collate_fn=lambda batch: (batch, len(told)), clock=clock, phase="read",
        ahead=ahead, fetch=told.append,
    )  # fmt: skip

    given = list(batches)

    assert told == [batch for batch, _ in given] == BATCHES
    assert all(known > place for place, (_, known) in enumerate(given[:-1]))


@pytest.mark.parametrize("ahead", [0, AHEAD])
def test_an_error_surfaces_where_its_batch_belongs(ahead: int) -> None:
    def collate(rows: list[int]) -> torch.Tensor:
        if rows == [2, 3, 4]:
            raise RuntimeError("entry 3 is damaged")
        return torch.tensor(rows)

    batches = iter(loader(collate, ahead))

    assert [next(batches).tolist() for _ in range(2)] == BATCHES[:2]
    with pytest.raises(RuntimeError, match="entry 3 is damaged"):
        next(batches)
    assert not threads()


def test_the_thread_ends_with_a_loop_that_ends_early() -> None:
    for _ in loader():
        assert threads()
        break
    assert not threads()


def test_no_more_than_is_wanted_is_assembled_ahead() -> None:
    begun: list[list[int]] = []

    def collate(rows: list[int]) -> torch.Tensor:
        begun.append(rows)
        return torch.tensor(rows)

    batches = iter(loader(collate, ahead=1))
    next(batches)
    time.sleep(0.05)

    assert begun == BATCHES[:2]
    batches.close()  # type: ignore[attr-defined]


def test_only_the_time_that_a_step_waits_is_counted() -> None:
    def collate(rows: list[int]) -> torch.Tensor:
        time.sleep(0.05)
        return torch.tensor(rows)

    clocks = {ahead: Stopwatch() for ahead in (0, AHEAD)}
    for ahead, clock in clocks.items():
        for _ in loader(collate, ahead, clock):
            time.sleep(0.1)

    assert clocks[0].seconds["read"] >= 0.2
    assert clocks[AHEAD].seconds["read"] < clocks[0].seconds["read"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_ahead_of_a_gpu_batches_are_pinned() -> None:
    rows: Any = range(7)
    batches = Ahead(
        rows, batch_sampler=BATCHES, collate_fn=torch.tensor, pin_memory=True, clock=Stopwatch(), phase="read"
    )
    assert all(batch.is_pinned() for batch in batches)
