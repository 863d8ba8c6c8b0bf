from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cache.corpus import Corpus, build_slowly, content, equal, opened, segments, sound

FRESH = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(["tests.cache.corpus"])
SIZE = 300


def builder(root: Path, size: int, seconds: float, calls: Path, wanted: slice = slice(None)) -> BaseProcess:
    process = FRESH.Process(target=build_slowly, args=(root, size, seconds, calls, wanted))
    process.start()
    return process


def entries(root: Path, texts: Corpus) -> set[int]:
    """Which inputs the cache has, all of them found to be what was encoded."""
    cache = opened(root)
    there = np.setdiff1d(np.arange(texts.size), cache.missing(texts.keys))
    packed, _ = cache.packed(cache.locate(texts.keys[there]))
    assert sound(cache)
    assert torch.equal(packed, torch.cat([packed[:0], *(texts.activations[i] for i in there)]))
    return set(there.tolist())


def encoded(calls: Path) -> Counter[str]:
    """How often each input was encoded, by whomever."""
    return Counter(i for line in calls.read_text().splitlines() for i in line.split()[1:])


@pytest.mark.parametrize("kills", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_a_killed_builder_loses_nothing_published_and_the_next_completes_it(tmp_path: Path, kills: int) -> None:
    texts, rng, finished, killed = Corpus(SIZE), random.Random(0), 0, 0

    while killed < kills:
        root, calls = tmp_path / f"cache-{finished}", tmp_path / f"calls-{killed}-{finished}"
        before = entries(root, texts)
        process = builder(root, SIZE, 0.002, calls)
        while process.is_alive() and not calls.exists():
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.15))
        process.kill()
        process.join()

        after = entries(root, texts)
        assert before <= after
        finished += len(after) == SIZE
        killed += process.exitcode != 0

    build_slowly(root, SIZE, 0, calls)
    assert len(entries(root, texts)) == SIZE
    assert not list(opened(root).directory.glob(".tmp-*"))


def encoders(calls: Path) -> dict[str, Counter[str]]:
    """How often each process encoded each input."""
    found: dict[str, Counter[str]] = {}
    for line in calls.read_text().splitlines():
        process, *inputs = line.split()
        found.setdefault(process, Counter()).update(inputs)
    return found


def ended(processes: list[BaseProcess]) -> list[BaseProcess]:
    for process in processes:
        process.join(60)
    assert not any(process.is_alive() for process in processes)
    return processes


@pytest.mark.parametrize("builders", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_builders_at_once_share_the_work_and_encode_each_entry_once(tmp_path: Path, builders: int) -> None:
    calls, texts = tmp_path / "calls", Corpus(SIZE)

    processes = ended([builder(tmp_path, SIZE, 0.02, calls) for _ in range(builders)])

    assert not any(process.exitcode for process in processes)
    assert encoded(calls) == Counter(map(str, range(SIZE)))
    assert len(encoders(calls)) == builders
    assert equal(content(opened(tmp_path), texts), texts.activations)
    assert not list(opened(tmp_path).directory.glob(".tmp-*"))


def test_builders_of_overlapping_sets_encode_each_entry_once(tmp_path: Path) -> None:
    calls, texts = tmp_path / "calls", Corpus(SIZE)
    wanted = [slice(200), slice(100, None), slice(None, None, -3)]

    processes = ended([builder(tmp_path, SIZE, 0.01, calls, part) for part in wanted])

    assert not any(process.exitcode for process in processes)
    assert encoded(calls) == Counter(map(str, range(SIZE)))
    assert equal(content(opened(tmp_path), texts), texts.activations)


@pytest.mark.parametrize(
    ("builders", "kills"),
    [(4, 2), pytest.param(8, 7, marks=pytest.mark.slow), pytest.param(8, 100, marks=pytest.mark.slow)],
)
def test_when_builders_are_killed_the_others_finish_and_only_what_was_lost_is_encoded_again(
    tmp_path: Path, builders: int, kills: int
) -> None:
    texts, rng, killed, turn = Corpus(SIZE), random.Random(0), 0, 0

    while killed < kills:
        root, turn = tmp_path / str(turn), turn + 1
        processes = [builder(root, SIZE, 0.02, tmp_path / f"calls-{turn}") for _ in range(builders)]
        for process in rng.sample(processes, min(builders - 1, kills - killed)):
            time.sleep(rng.uniform(0, 0.4 / builders))
            process.kill()
        dead = {str(process.pid) for process in ended(processes) if process.exitcode}

        assert len(dead) < builders
        assert entries(root, texts) == set(range(SIZE))
        done = encoders(tmp_path / f"calls-{turn}")
        living = sum((count for process, count in done.items() if process not in dead), Counter[str]())
        assert set(living.values()) <= {1}
        assert all(set(done[process].values()) == {1} for process in dead & set(done))
        killed += len(dead)


def test_a_builder_takes_over_when_the_one_it_waits_for_is_killed(tmp_path: Path) -> None:
    calls, texts = tmp_path / "calls", Corpus(SIZE)
    first = builder(tmp_path, SIZE, 0.01, calls)
    while len(segments(opened(tmp_path))) < 2:
        time.sleep(0.005)
    second = builder(tmp_path, SIZE, 0.01, calls)
    time.sleep(0.2)

    first.kill()
    second.join()
    first.join()

    assert second.exitcode == 0
    assert encoded(calls).keys() == set(map(str, range(SIZE)))
    assert equal(content(opened(tmp_path), texts), texts.activations)
    assert not list(opened(tmp_path).directory.glob(".tmp-*"))
