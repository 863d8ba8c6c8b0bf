from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
import threading
from collections import Counter, namedtuple
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from er.cache import publish
from er.cache.build import Built, build, windows
from er.cache.claims import Claims
from er.cache.codec import STORAGE
from er.cache.key import Ints
from er.cache.publish import claim
from er.errors import UserError
from tests.cache.corpus import Corpus, content, equal, opened, segments, sound

build_small = partial(build, segment_bytes=1 << 12, batch_tokens=50, progress=False)


@pytest.fixture
def texts() -> Corpus:
    return Corpus(120)


@pytest.mark.parametrize("storage", STORAGE)
def test_a_build_holds_what_the_encoder_said(storage: str, tmp_path: Path, texts: Corpus) -> None:
    cache = opened(tmp_path, storage)

    built = build_small(cache, texts.keys, texts.lengths, texts.encode)

    assert (built.hits, built.misses) == (0, 120)
    assert built.bytes == cache.nbytes(cache.locate(texts.keys))
    assert len(segments(cache)) > 3
    tolerance = 0 if storage == "float32" else 0.02
    assert all(map(lambda x, y: torch.allclose(x, y, atol=tolerance), content(cache, texts), texts.activations))
    assert sound(cache)


def test_entries_lie_in_the_order_of_the_data_set(tmp_path: Path, texts: Corpus) -> None:
    cache = opened(tmp_path)
    build(cache, texts.keys, texts.lengths, texts.encode, progress=False)

    assert cache.locate(texts.keys)["entry"].tolist() == list(range(120))


def test_only_what_is_missing_is_encoded_and_each_input_once(tmp_path: Path, texts: Corpus) -> None:
    cache, encoded = opened(tmp_path), Counter[int]()

    def encode(chosen: Ints) -> Tensor:
        encoded.update(chosen.tolist())
        return texts.encode(chosen % 120)

    keys, lengths = np.tile(texts.keys, 2), np.tile(texts.lengths, 2)
    build_small(cache, keys[:40], lengths[:40], encode)
    built = build_small(cache, keys, lengths, encode)

    assert (built.hits, built.misses) == (40, 80)
    assert encoded == Counter(range(120))
    assert equal(content(cache, texts), texts.activations)


def test_batches_keep_to_their_budget_and_start_with_the_longest(tmp_path: Path, texts: Corpus) -> None:
    shapes = []

    def encode(chosen: Ints) -> Tensor:
        shapes.append(texts.encode(chosen).shape[:2])
        return texts.encode(chosen)

    build(opened(tmp_path), texts.keys, texts.lengths, encode, batch_tokens=50, progress=False)

    assert all(batch * longest <= 50 for batch, longest in shapes)
    assert [longest for _, longest in shapes] == sorted((longest for _, longest in shapes), reverse=True)
    assert texts.lengths.sum() / sum(batch * longest for batch, longest in shapes) > 0.9


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), max_size=80), st.integers(1, 400), st.integers(1, 60))
def test_windows_hold_everything_in_order_keep_to_their_size_and_end_small(
    lengths: list[int], tokens: int, least: int
) -> None:
    todo, tokens = np.arange(len(lengths))[::-1], max(tokens, least)

    parts = list(windows(todo, np.array(lengths, np.int64), tokens, least))
    held = [sum(lengths[i] for i in part) for part in parts]

    assert [i for part in parts for i in part] == todo.tolist()
    assert all(each <= tokens or len(part) == 1 for each, part in zip(held, parts, strict=True))
    assert all(each <= max(least, tokens // 16, 40) for each in held[-1:])


def test_an_input_longer_than_the_budget_is_a_batch_of_its_own(tmp_path: Path, texts: Corpus) -> None:
    cache = opened(tmp_path)
    build(cache, texts.keys, texts.lengths, texts.encode, segment_bytes=1, batch_tokens=1, progress=False)
    assert equal(content(cache, texts), texts.activations)


def test_an_input_without_tokens_is_refused(tmp_path: Path, texts: Corpus) -> None:
    with pytest.raises(ValueError, match="above zero"):
        build_small(opened(tmp_path), texts.keys[:1], np.zeros(1, np.uint8), lambda chosen: pytest.fail("encoded"))


def test_when_nothing_is_missing_nothing_is_touched(
    tmp_path: Path, texts: Corpus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = opened(tmp_path)
    build(cache, texts.keys, texts.lengths, texts.encode)
    assert "Caching 120 entries" in capsys.readouterr().err
    before = {path: path.stat() for path in cache.directory.iterdir()}
    monkeypatch.setattr("er.cache.publish.claim", lambda file: pytest.fail("a lock was taken"))

    built = build(opened(tmp_path), texts.keys, texts.lengths, lambda chosen: pytest.fail("encoded again"))

    assert (built.hits, built.misses, built.bytes) == (120, 0, 0)
    assert {path: path.stat() for path in cache.directory.iterdir()} == before
    assert capsys.readouterr().err == ""


def test_progress_can_be_silenced(tmp_path: Path, texts: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    build(opened(tmp_path), texts.keys, texts.lengths, texts.encode, progress=False)
    assert capsys.readouterr().err == ""


def test_too_little_room_is_told_before_anything_is_encoded(
    tmp_path: Path, texts: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1000))

    with pytest.raises(UserError, match=r"120 entries takes 0\.00 GB.*0\.00 GB free.*paths.cache"):
        build(opened(tmp_path / "cache"), texts.keys, texts.lengths, lambda chosen: pytest.fail("encoded"))
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_is_an_error_and_keeps_what_was_published(
    tmp_path: Path, texts: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, fsync = opened(tmp_path), os.fsync
    calls = count()

    def full(handle: int) -> None:
        if next(calls) == 6:  # after the space's description and two segments, each with its directory
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=rf"Cannot write the cache in {cache.directory}: No space left.*Make room"):
        build_small(cache, texts.keys, texts.lengths, texts.encode)
    monkeypatch.undo()

    assert not list(cache.directory.glob(".tmp-*"))
    assert sound(cache)
    assert len(segments(cache)) == 2
    assert build_small(opened(tmp_path), texts.keys, texts.lengths, texts.encode).hits > 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KB, where the system lets us make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no permission to mount a disk")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("batches", [0, 9, 15])
def test_a_disk_that_another_fills_meanwhile_is_an_error_and_the_published_part_still_works(
    small_disk: Path, texts: Corpus, batches: int
) -> None:
    cache, calls, ballast = opened(small_disk), count(), small_disk / "ballast"

    def encode(chosen: Ints) -> Tensor:
        if next(calls) == batches:
            ballast.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 6000))  # leave room for half a segment
        return texts.encode(chosen)

    with pytest.raises(UserError, match=r"Cannot write the cache in .*: No space left.*Make room"):
        build_small(cache, texts.keys, texts.lengths, encode)

    there = np.flatnonzero(~opened(small_disk).absent(texts.keys))
    assert (len(there) > 0) == (batches > 0)
    assert all(torch.equal(cache.read(cache.locate(texts.keys[[i]]))[0], texts.activations[i]) for i in there)
    assert sound(cache)
    assert not list(cache.directory.glob(".tmp-*"))
    ballast.unlink()
    build_small(cache, texts.keys, texts.lengths, texts.encode)
    assert equal(content(cache, texts), texts.activations)


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, texts: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=r"Read-only file system.*paths.cache"):
        build_small(opened(tmp_path / "cache"), texts.keys, texts.lengths, texts.encode)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_build_leaves_whole_segments_and_no_temporary_file(
    tmp_path: Path, texts: Corpus, error: type[BaseException]
) -> None:
    cache, calls = opened(tmp_path), iter(range(12))

    def encode(chosen: Ints) -> Tensor:
        if next(calls, None) is None:
            raise error
        return texts.encode(chosen)

    with pytest.raises(error):
        build_small(cache, texts.keys, texts.lengths, encode)

    assert segments(cache)
    assert sound(cache)
    assert not list(cache.directory.glob(".tmp-*"))
    build_small(cache, texts.keys, texts.lengths, texts.encode)
    assert equal(content(cache, texts), texts.activations)


def test_a_file_system_without_locks_is_named(tmp_path: Path, texts: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(UserError, match=r"No locks available.*written and locked"):
        build_small(opened(tmp_path), texts.keys, texts.lengths, texts.encode)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("storage", STORAGE)
def test_activations_may_come_from_a_gpu(storage: str, tmp_path: Path, texts: Corpus) -> None:
    here, there = opened(tmp_path / "here", storage), opened(tmp_path / "there", storage)
    build_small(here, texts.keys, texts.lengths, texts.encode)
    build_small(there, texts.keys, texts.lengths, lambda chosen: texts.encode(chosen).cuda())

    assert equal(content(there, texts), content(here, texts))


def test_an_overflow_stops_the_build_with_advice(tmp_path: Path, texts: Corpus) -> None:
    with pytest.raises(UserError, match=r"cache\.dtype=bfloat16"):
        build_small(opened(tmp_path, "float16"), texts.keys, texts.lengths, lambda i: texts.encode(i) * 1e6)


def test_only_the_temporary_files_of_the_dead_are_swept(tmp_path: Path, texts: Corpus) -> None:
    cache = opened(tmp_path)
    build_small(cache, texts.keys[:10], texts.lengths[:10], texts.encode)
    dead, alive = cache.directory / ".tmp-1-dead", cache.directory / ".tmp-1-alive"
    dead.touch()

    with open(alive, "wb") as writer:
        claim(writer)
        build_small(cache, texts.keys, texts.lengths, texts.encode)

    assert not dead.exists()
    assert alive.exists()


def test_a_temporary_file_that_is_swept_before_it_is_claimed_is_made_anew(
    tmp_path: Path, texts: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, swept = opened(tmp_path), list[Path]()

    def overtaken(file: IO[bytes]) -> bool:
        if not swept and file.mode == "xb":
            swept.append(Path(file.name))
            swept[0].unlink()
        return claim(file)

    monkeypatch.setattr(publish, "claim", overtaken)
    build_small(cache, texts.keys, texts.lengths, texts.encode)

    assert swept
    assert equal(content(cache, texts), texts.activations)


def test_what_others_have_taken_on_is_left_to_them_and_waited_for(
    tmp_path: Path, texts: Corpus, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(publish, "POLL_SECONDS", 0.01)
    first, second = opened(tmp_path), opened(tmp_path)
    built: list[Built] = []

    with Claims(first) as claims:
        assert claims.take(texts.keys[:50]).all()
        assert not Claims(second).take(texts.keys[:50]).any()
        waiting = threading.Thread(
            target=lambda: built.append(build_small(second, texts.keys, texts.lengths, texts.encode))
        )
        waiting.start()
        while "waiting" not in caplog.text:
            waiting.join(0.01)
        first.publish(texts.keys[:50], texts.lengths[:50], texts.packed(slice(50)), seconds=1)
    waiting.join()

    assert f"Another builder is at work in {first.directory}" in caplog.text
    assert (built[0].hits, built[0].misses) == (50, 70)
    assert equal(content(second, texts), texts.activations)


@pytest.mark.parametrize("failing", ["encode", "publish"])
def test_a_build_that_fails_lets_go_of_what_it_took_on(
    tmp_path: Path, texts: Corpus, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, other = opened(tmp_path), opened(tmp_path)

    def fail(*_: object, **__: object) -> Tensor:
        raise RuntimeError("no")

    monkeypatch.setattr(cache, "publish", fail if failing == "publish" else cache.publish)
    with pytest.raises(RuntimeError, match="no"):
        build_small(cache, texts.keys, texts.lengths, fail if failing == "encode" else texts.encode)

    with Claims(other) as claims:
        assert claims.take(texts.keys).all()
    assert not list(cache.directory.glob(".tmp-*"))
