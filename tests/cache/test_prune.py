from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from er.cache.prune import Candidate, candidates, delete, plan
from er.cache.publish import locked
from er.cache.spaces import directories
from er.cache.usage import MARKER, last_used
from er.errors import UserError
from tests.cache.corpus import Corpus, content, equal, opened

FRESH = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(["tests.cache.corpus"])
STORAGES = ("float32", "float16", "int8")
DAY = 86400


@pytest.fixture
def texts() -> Corpus:
    return Corpus(30)


@pytest.fixture
def homes(tmp_path: Path, texts: Corpus) -> list[Path]:
    """Three spaces that nobody uses any more: the first was used three days ago, the last one day ago."""
    found = []
    for days, storage in zip((3, 2, 1), STORAGES, strict=True):
        cache = opened(tmp_path, storage)
        cache.publish(texts.keys, texts.lengths, texts.packed(), seconds=1)
        found.append(cache.directory)
        del cache
        aged(found[-1], days)
    gc.collect()
    return found


def aged(directory: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(directory / MARKER, (then, then))


def use_until_told(root: Path, storage: str, told: Connection) -> None:
    """Open a space in a process of its own, as a run does."""
    cache = opened(root, storage)
    told.send(str(cache.directory))
    told.recv()


@contextmanager
def another_process_using(root: Path, storage: str) -> Iterator[int]:
    here, there = FRESH.Pipe()
    process = FRESH.Process(target=use_until_told, args=(root, storage, there))
    process.start()
    here.recv()
    assert process.pid
    try:
        yield process.pid
    finally:
        process.kill()
        process.join()


def names(found: list[Candidate]) -> list[Path]:
    return [each.directory for each in found]


def test_the_longest_unused_comes_first(tmp_path: Path, homes: list[Path]) -> None:
    assert names(candidates(tmp_path)) == homes
    aged(homes[0], 0)
    assert names(candidates(tmp_path)) == [homes[1], homes[2], homes[0]]


@pytest.mark.parametrize(("days", "left"), [(0.5, 0), (1.5, 1), (2.5, 2), (9, 3)])
def test_by_age_goes_what_nobody_used_since(tmp_path: Path, homes: list[Path], days: float, left: int) -> None:
    for each in candidates(tmp_path, older_than=days * DAY):
        assert delete(each.directory)

    assert set(directories(tmp_path)) == set(homes[3 - left :])


def test_by_name_goes_the_one_that_is_meant(tmp_path: Path, homes: list[Path]) -> None:
    assert names(candidates(tmp_path, homes[1].name[:12])) == [homes[1]]
    for prefix in ("", "xyz"):
        with pytest.raises(UserError, match=r"spaces in .* begin so.*action=list"):
            candidates(tmp_path, prefix)


@given(
    sizes=st.lists(st.integers(1, 100), max_size=8),
    busy=st.lists(st.booleans(), min_size=8, max_size=8),
    surplus=st.integers(-50, 900),
)
def test_a_plan_frees_enough_with_the_longest_unused_and_no_more(
    sizes: list[int], busy: list[bool], surplus: int
) -> None:
    found = [Candidate(Path(str(i)), size, i, used) for i, (size, used) in enumerate(zip(sizes, busy, strict=False))]

    chosen = plan(found, surplus)

    idle = [each for each in found if not each.busy]
    assert chosen == idle[: len(chosen)]
    freed = sum(each.bytes for each in chosen)
    assert freed >= surplus or chosen == idle
    assert not chosen or freed - chosen[-1].bytes < surplus


def test_a_space_in_use_by_another_process_stays_until_that_ends(
    tmp_path: Path, homes: list[Path], texts: Corpus
) -> None:
    with another_process_using(tmp_path, STORAGES[0]):
        assert [each.busy for each in candidates(tmp_path)].count(True) == 1
        assert not delete(homes[0])
        assert equal(content(opened(tmp_path, STORAGES[0]), texts), texts.activations)
    gc.collect()

    assert delete(homes[0])
    assert not homes[0].exists()


def test_a_space_in_use_here_stays_and_so_in_a_copy(tmp_path: Path, homes: list[Path]) -> None:
    cache = opened(tmp_path, STORAGES[0])
    copy = pickle.loads(pickle.dumps(cache))
    del cache
    gc.collect()
    assert not delete(homes[0])
    del copy
    gc.collect()
    assert delete(homes[0])


def test_a_space_that_is_being_built_stays(tmp_path: Path, homes: list[Path]) -> None:
    with locked(homes[0]):
        assert candidates(tmp_path)[0].busy
        assert not delete(homes[0])
    assert not candidates(tmp_path)[0].busy


def test_a_space_is_in_use_from_its_first_segment_on(tmp_path: Path, texts: Corpus) -> None:
    cache = opened(tmp_path)
    cache.publish(texts.keys, texts.lengths, texts.packed(), seconds=1)
    assert not delete(cache.directory)


def test_opening_a_space_notes_the_time_at_most_once_an_hour(tmp_path: Path, homes: list[Path]) -> None:
    opened(tmp_path, STORAGES[0])
    noted = last_used(homes[0])
    assert time.time() - noted < 60
    opened(tmp_path, STORAGES[0])
    assert last_used(homes[0]) == noted


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES])
def test_who_cannot_write_the_marker_uses_the_space_all_the_same(
    tmp_path: Path, homes: list[Path], texts: Corpus, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    real = os.open

    def refuse(path: Path, flags: int, *mode: int, **more: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(error, os.strerror(error))
        return real(path, flags, *mode, **more)

    monkeypatch.setattr(os, "open", refuse)
    cache = opened(tmp_path, STORAGES[0])
    assert equal(content(cache, texts), texts.activations)
    assert candidates(tmp_path, homes[0].name)[0].busy  # what exists can still be locked
    (homes[1] / MARKER).unlink()
    assert torch.isfinite(
        opened(tmp_path, STORAGES[1]).packed(opened(tmp_path, STORAGES[1]).locate(texts.keys))[0]
    ).all()


def test_without_locks_nothing_is_deleted(
    tmp_path: Path, homes: list[Path], texts: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(UserError, match=r"No locks available.*delete .* yourself"):
        candidates(tmp_path)
    with pytest.raises(UserError, match="No locks available"):
        delete(homes[0])
    assert equal(content(opened(tmp_path, STORAGES[0]), texts), texts.activations)


def test_a_deletion_that_stops_halfway_leaves_a_space_that_works(
    tmp_path: Path, homes: list[Path], texts: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = opened(tmp_path, STORAGES[0])
    cache.publish(texts.keys, texts.lengths, texts.packed(), seconds=2)
    del cache
    gc.collect()
    unlink, left = Path.unlink, iter(range(2))

    def stop(path: Path, missing_ok: bool = False) -> None:
        if next(left, None) is None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", stop)
    with pytest.raises(UserError, match="Input/output error"):
        delete(homes[0])
    monkeypatch.undo()

    assert equal(content(opened(tmp_path, STORAGES[0]), texts), texts.activations)
    gc.collect()
    assert delete(homes[0]) and not homes[0].exists()


def test_what_is_not_ours_survives_its_space(homes: list[Path]) -> None:
    (homes[0] / "notes.txt").write_text("not ours")

    assert delete(homes[0])

    assert [path.name for path in homes[0].iterdir()] == ["notes.txt"]


def test_a_space_of_another_version_can_be_deleted(tmp_path: Path, homes: list[Path]) -> None:
    home = tmp_path / ("0" * 32)
    home.mkdir()
    (home / "space.json").write_text('{"space": {"format": 99}}')
    (home / f"{'1' * 32}.safetensors").write_bytes(b"in another layout")

    assert names(candidates(tmp_path, "000000")) == [home]
    assert delete(home) and not home.exists()


def test_a_space_can_be_built_again_at_once(tmp_path: Path, homes: list[Path], texts: Corpus) -> None:
    assert delete(homes[0])
    cache = opened(tmp_path, STORAGES[0])
    cache.publish(texts.keys, texts.lengths, texts.packed(), seconds=1)
    assert equal(content(cache, texts), texts.activations)
