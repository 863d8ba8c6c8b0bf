from __future__ import annotations

import multiprocessing
import random
import time
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from er.cache.build import build
from er.cache.codec import STORAGE
from er.cache.compact import compact
from er.cache.segment import Segment
from er.cache.store import ActivationCache
from er.cache.verify import examine
from er.errors import UserError
from tests.cache.corpus import Corpus, content, equal, opened, segments, sound

FRESH = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(["tests.cache.corpus", "er.cache.compact"])

build_small = partial(build, segment_bytes=1 << 12, batch_tokens=50, progress=False)
LARGE = 1 << 20


def filled(root: Path, texts: Corpus, storage: str = "float32") -> ActivationCache:
    cache = opened(root, storage)
    build_small(cache, texts.keys, texts.lengths, texts.encode)
    return cache


def double(cache: ActivationCache) -> int:
    """How many entries lie in more than one segment."""
    keys = np.concatenate([Segment.open(path).table.keys for path in segments(cache)])
    return len(keys) - len(np.unique(keys))


@pytest.fixture
def texts() -> Corpus:
    return Corpus(120)


@pytest.mark.parametrize("storage", STORAGE)
def test_many_become_one_and_every_entry_stays_to_the_bit(tmp_path: Path, texts: Corpus, storage: str) -> None:
    cache = filled(tmp_path, texts, storage)
    before, where = content(cache, texts), cache.locate(texts.keys)

    done = compact(cache.directory, LARGE, progress=False)

    after = opened(tmp_path, storage)
    assert done.before > 3 and done.after == len(segments(cache)) == 1
    assert equal(content(after, texts), before)
    assert after.cost(after.locate(texts.keys)) == pytest.approx(cache.cost(where))
    assert examine([cache.directory], progress=False).whole
    assert compact(cache.directory, LARGE, progress=False).bytes == 0


@settings(max_examples=15)
@given(size=st.integers(1, 40), seed=st.integers(0, 99), target=st.integers(1, 1 << 15), parts=st.integers(1, 12))
def test_whatever_the_sizes_nothing_is_lost_and_a_second_time_does_nothing(
    tmp_path_factory: pytest.TempPathFactory, size: int, seed: int, target: int, parts: int
) -> None:
    texts, root = Corpus(size, seed), tmp_path_factory.mktemp("cache")
    cache = opened(root)
    for part in np.array_split(np.arange(size), parts):
        if len(part):
            again = np.union1d(part, part[:1] // 2)  # some lie double, as after a kill
            cache.publish(texts.keys[again], texts.lengths[again], texts.packed(again), seconds=1)

    compact(cache.directory, target, progress=False)

    assert equal(content(opened(root), texts), texts.activations)
    assert double(cache) == 0
    names = segments(cache)
    compact(cache.directory, target, progress=False)
    assert segments(cache) == names


def test_segments_keep_to_the_target_and_entries_to_their_order(tmp_path: Path, texts: Corpus) -> None:
    cache = filled(tmp_path, texts)

    compact(cache.directory, 1 << 14, progress=False)

    found = [Segment.open(path) for path in segments(cache)]
    assert len(found) > 2
    assert sorted(segment.tokens * 48 >= 1 << 14 for segment in found)[1:] == [True] * (len(found) - 1)
    where = opened(tmp_path).locate(texts.keys)
    for number in np.unique(where["segment"]):
        assert (np.diff(where["entry"][where["segment"] == number]) == 1).all()


def test_a_reader_keeps_what_it_has_located_and_locates_what_was_moved(tmp_path: Path, texts: Corpus) -> None:
    located, indexed = filled(tmp_path, texts), opened(tmp_path)
    half = located.locate(texts.keys[:60])

    compact(located.directory, LARGE, progress=False)

    assert torch.equal(located.packed(half)[0], texts.packed(slice(60)))
    assert equal(content(indexed, texts), texts.activations)
    assert equal(content(located, texts), texts.activations)
    assert torch.equal(located.packed(half)[0], texts.packed(slice(60)))
    assert not len(indexed.missing(texts.keys))


def test_a_reader_that_saw_entries_double_finds_the_other_when_one_goes(tmp_path: Path, texts: Corpus) -> None:
    cache = filled(tmp_path, texts)
    cache.publish(texts.keys, texts.lengths, texts.packed(), seconds=1)
    reader = opened(tmp_path)

    compact(cache.directory, 1 << 12, progress=False)

    assert double(cache) == 0
    assert equal(content(reader, texts), texts.activations)


def test_what_is_published_meanwhile_stays(tmp_path: Path, texts: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, late = filled(tmp_path, texts), Corpus(10, seed=5)
    monkeypatch.setattr(
        "er.cache.compact.sweep",
        lambda directory: opened(tmp_path).publish(late.keys, late.lengths, late.packed(), seconds=1),
    )

    compact(cache.directory, LARGE, progress=False)

    assert equal(content(opened(tmp_path), texts), texts.activations)
    assert equal(content(opened(tmp_path), late), late.activations)


def test_damage_stops_it_and_nothing_is_dropped(tmp_path: Path, texts: Corpus) -> None:
    cache = filled(tmp_path, texts)
    paths = segments(cache)
    data = bytearray(paths[2].read_bytes())
    data[4096] ^= 1
    paths[2].write_bytes(data)

    with pytest.raises(UserError, match=rf"{paths[2]} is damaged.*repair=true"):
        compact(cache.directory, LARGE, progress=False)

    assert segments(cache) == paths
    assert not list(cache.directory.glob(".tmp-*"))


def test_the_bar_can_be_silenced(tmp_path: Path, texts: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    cache = filled(tmp_path, texts)
    compact(cache.directory, LARGE, progress=False)
    assert capsys.readouterr().err == ""


def compactor(directory: Path, target: int) -> BaseProcess:
    process = FRESH.Process(target=compact, args=(directory, target, False))
    process.start()
    return process


@pytest.mark.parametrize("kills", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_at_any_moment_nothing_is_lost(tmp_path: Path, kills: int) -> None:
    texts, rng, killed, rounds = Corpus(300), random.Random(0), 0, 0
    while killed < kills:
        root = tmp_path / str(rounds)
        cache = filled(root, texts)
        before = len(segments(cache))
        process = compactor(cache.directory, 1 << 14)
        while process.is_alive() and not list(cache.directory.glob(".tmp-*")) and len(segments(cache)) == before:
            time.sleep(0.0005)
        time.sleep(rng.uniform(0, 0.03))
        process.kill()
        process.join()
        killed += process.exitcode != 0
        rounds += 1

        assert equal(content(opened(root), texts), texts.activations)
        assert sound(cache)
        assert examine([cache.directory], progress=False).whole
        compact(cache.directory, 1 << 14, progress=False)
        assert double(cache) == 0
        assert equal(content(opened(root), texts), texts.activations)
        assert not list(cache.directory.glob(".tmp-*"))
