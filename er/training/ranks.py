"""Several processes that train one run: how they are started, and what they tell each other."""

from __future__ import annotations

import logging.config
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

import torch
from omegaconf import OmegaConf
from torch import distributed
from torch.multiprocessing.spawn import ProcessException, start_processes

from er.config import CONF, Config
from er.errors import UserError

T = TypeVar("T")

GRACE = 5.0
"""Seconds that the other ranks have to end by themselves, when one has failed."""


def launch(work: Callable[[Config], object], config: Config) -> None:
    """Do `work` in as many processes as there are devices; where one fails, all end, and its error is raised.

    They are started anew rather than by the command that was issued, as Lightning would have it: so it makes no
    difference whether a run is one of `er train`, of a sweep, or of somebody's own script.
    """
    told = get_context("spawn").SimpleQueue()
    with _told_to_end(), tempfile.TemporaryDirectory(prefix="er-ranks-") as folder:
        arguments = (work, config, f"file://{folder}/meeting", told)
        ranks = start_processes(_rank, arguments, config.trainer.devices, join=False, start_method="spawn")
        try:
            while not ranks.join(grace_period=GRACE):
                pass
        except KeyboardInterrupt as interrupt:
            raise SystemExit(128 + signal.SIGINT) from interrupt
        except ProcessException as error:
            if told.empty():
                raise
            raise UserError(told.get()) from error
        finally:
            for process in ranks.processes:
                process.kill()  # nothing to those that have ended


@contextmanager
def _told_to_end() -> Iterator[None]:
    """Have SIGTERM end this process as an exception does, and its ranks with it, unless somebody else handles it."""
    free = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not free or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _rank(rank: int, work: Callable[[Config], object], config: Config, meeting: str, told: Any) -> None:
    world = config.trainer.devices
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; who started them ends them
    os.environ["LOCAL_RANK"] = str(rank)  # by which Lightning knows that there are processes enough
    messages: Any = OmegaConf.to_object(OmegaConf.load(CONF / "hydra" / "job_logging" / "er.yaml"))
    logging.config.dictConfig(messages)
    logging.getLogger().setLevel(logging.WARNING if rank else logging.INFO)
    torch.set_num_threads(max(1, torch.get_num_threads() // world))
    try:
        distributed.init_process_group(init_method=meeting, rank=rank, world_size=world)
        work(config)
        distributed.destroy_process_group()
    except UserError as error:
        told.put(str(error))
        raise


def rank() -> int:
    """Return the number of this process among those of its run."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """Return how many processes train this run."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def gathered(own: T) -> list[T]:
    """Return what each process gives, in the order of their ranks; all of them must ask."""
    if world() == 1:
        return [own]
    given: list[Any] = [None] * world()
    distributed.all_gather_object(given, own)
    return given
