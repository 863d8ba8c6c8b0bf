from __future__ import annotations

import json
import os
import pickle
import tempfile
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from er.cache import store
from er.cache.buffers import KEPT, Buffers
from er.cache.codec import STORAGE
from er.cache.key import FORMAT
from er.cache.segment import Segment
from er.cache.store import ActivationCache
from er.errors import UserError
from tests.cache.corpus import HIDDEN, SPACE, Corpus, content, equal, opened, segments


@pytest.fixture
def texts() -> Corpus:
    return Corpus()


@pytest.fixture
def cache(tmp_path: Path, texts: Corpus) -> ActivationCache:
    """A cache that holds all texts, in two segments."""
    cache = opened(tmp_path)
    for part in (slice(None, 25), slice(25, None)):
        cache.publish(
            texts.keys[part], texts.lengths[part], texts.packed(part), seconds=texts.lengths[part].sum() / 100
        )
    return cache


@settings(max_examples=25)
@given(size=st.integers(1, 30), seed=st.integers(0, 99), storage=st.sampled_from(list(STORAGE)), data=st.data())
def test_any_selection_in_any_order_is_what_was_published(
    size: int, seed: int, storage: str, data: st.DataObject
) -> None:
    texts = Corpus(size, seed)
    cuts = sorted(data.draw(st.sets(st.integers(1, size), max_size=3)) | {size})
    wanted = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=40)), dtype=int)

    with tempfile.TemporaryDirectory() as root:
        cache = opened(Path(root), storage)
        for start, end in zip([0, *cuts], cuts, strict=False):
            cache.publish(texts.keys[start:end], texts.lengths[start:end], texts.packed(slice(start, end)), seconds=1)
        where = cache.locate(texts.keys)[wanted]
        packed, lengths = cache.packed(where)
        padded = cache.read(where)

    expected = [texts.activations[i] for i in wanted]
    assert lengths.tolist() == [len(x) for x in expected]
    assert padded.shape == (len(wanted), max(map(len, expected), default=0), HIDDEN)
    for x, part, row in zip(expected, torch.split(packed, lengths.tolist()), padded, strict=True):
        assert torch.allclose(part, x, atol=0 if storage == "float32" else 0.02)
        assert torch.equal(row[: len(x)], part)
        assert not row[len(x) :].any()


def test_any_view_of_a_tensor_can_be_published(tmp_path: Path, texts: Corpus) -> None:
    cache, x = opened(tmp_path), texts.packed().T.contiguous().requires_grad_().T
    cache.publish(texts.keys, texts.lengths, x, seconds=1)
    assert equal(content(cache, texts), texts.activations)


def test_missing_names_each_absent_input_once(cache: ActivationCache, texts: Corpus) -> None:
    others = Corpus(3, seed=9)
    keys = np.concatenate([others.keys, texts.keys, others.keys[::-1]])

    assert cache.missing(keys).tolist() == [0, 1, 2]
    assert not len(cache.missing(texts.keys))
    with pytest.raises(UserError, match=r"6 of 66 inputs are not in the cache at .*number 0.*er cache"):
        cache.locate(keys)


def test_cost_and_bytes_count_an_entry_once(cache: ActivationCache, texts: Corpus) -> None:
    where = cache.locate(texts.keys)
    twice = np.concatenate([where, where[::-1]])

    assert cache.cost(twice) == pytest.approx(texts.lengths.sum() / 100)
    assert cache.nbytes(twice) == cache.size(texts.lengths)
    on_disk = sum(path.stat().st_size for path in segments(cache))
    assert cache.nbytes(where) == on_disk - 2 * 4096  # one page of header each


def test_published_entries_are_taken_up_by_refresh(tmp_path: Path, texts: Corpus) -> None:
    early = opened(tmp_path)
    opened(tmp_path).publish(texts.keys, texts.lengths, texts.packed(), seconds=1)

    assert len(early.missing(texts.keys)) == texts.size
    early.refresh()
    assert equal(content(early, texts), texts.activations)


def test_an_entry_published_twice_is_served_once(cache: ActivationCache, texts: Corpus) -> None:
    where = cache.locate(texts.keys)
    cache.publish(texts.keys, texts.lengths, texts.packed(), seconds=1)

    assert (cache.locate(texts.keys) == where).all()
    assert equal(content(opened(cache.directory.parent), texts), texts.activations)


def test_nothing_is_created_before_the_first_write(tmp_path: Path, texts: Corpus) -> None:
    cache = opened(tmp_path / "cache")
    cache.refresh()

    assert len(cache.missing(texts.keys)) == texts.size
    assert not list(tmp_path.iterdir())


def test_reading_writes_nothing(cache: ActivationCache, texts: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    for name in ("mkdir", "rename", "unlink"):  # root, who may run this, is stopped by no permission bits
        monkeypatch.setattr(os, name, refuse)
        monkeypatch.setattr(Path, name, refuse)
    before = sorted(cache.directory.iterdir())

    assert equal(content(opened(cache.directory.parent), texts), texts.activations)
    with pytest.raises(UserError, match=r"Permission denied.*paths.cache"):
        cache.publish(texts.keys, texts.lengths, texts.packed(), seconds=1)
    monkeypatch.undo()
    for left in set(cache.directory.iterdir()) - set(before):
        left.unlink()


def test_foreign_and_temporary_files_are_left_alone(cache: ActivationCache, texts: Corpus) -> None:
    foreign = ["notes.txt", "model.safetensors", ".tmp-1-dead", "0" * 32, f"{'0' * 31}.safetensors"]
    for name in foreign:
        (cache.directory / name).write_text("not ours")
    (cache.directory / "folder").mkdir()

    assert equal(content(opened(cache.directory.parent), texts), texts.activations)
    assert all((cache.directory / name).read_text() == "not ours" for name in foreign)


@pytest.mark.parametrize("depth", [0, 1])
def test_a_file_in_place_of_the_cache_is_named(tmp_path: Path, depth: int) -> None:
    path = (tmp_path / "cache", tmp_path / "cache" / SPACE.digest)[depth]
    path.parent.mkdir(exist_ok=True)
    path.write_text("")

    with pytest.raises(UserError, match=rf"{path}.*Not a directory.*paths.cache"):
        opened(tmp_path / "cache")


@pytest.mark.parametrize("change", [{"format": FORMAT + 1}, {"weights": "other"}])
def test_a_space_of_another_format_or_identity_is_refused(cache: ActivationCache, change: dict[str, int | str]) -> None:
    identity = cache.directory / "space.json"
    told = json.loads(identity.read_text())
    told["space"] |= change
    identity.write_text(json.dumps(told))

    with pytest.raises(UserError, match=r"space.json describes another space or another format.*Delete"):
        opened(cache.directory.parent)


def test_a_flipped_bit_in_the_description_is_named_or_changes_nothing(cache: ActivationCache, texts: Corpus) -> None:
    identity = cache.directory / "space.json"
    whole = identity.read_bytes()

    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        identity.write_bytes(data)
        try:
            served = content(opened(cache.directory.parent), texts)
        except UserError as error:
            assert str(identity) in str(error)
        else:
            assert equal(served, texts.activations)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"x"', "\xff"])
def test_a_broken_description_of_the_space_is_named(cache: ActivationCache, text: str) -> None:
    (cache.directory / "space.json").write_bytes(text.encode("latin1"))

    with pytest.raises(UserError, match=r"space.json.*Delete"):
        opened(cache.directory.parent)


def test_the_space_describes_itself_in_clear(tmp_path: Path, texts: Corpus) -> None:
    cache = ActivationCache(tmp_path, SPACE, HIDDEN, about={"model": "tiny"})
    cache.publish(texts.keys, texts.lengths, texts.packed(), seconds=1)

    told = json.loads((cache.directory / "space.json").read_text())

    assert replace(SPACE, **told["space"]) == SPACE
    assert told["about"] == {"model": "tiny"}


def test_another_width_is_refused(cache: ActivationCache) -> None:
    with pytest.raises(UserError, match="another space"):
        ActivationCache(cache.directory.parent, SPACE, HIDDEN + 1)


@pytest.mark.parametrize("lengths", [[], [3], [3, 0], [1, 1, 1], [2, 2]])
def test_lengths_that_do_not_fit_are_refused(tmp_path: Path, texts: Corpus, lengths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"lengths|belong"):
        opened(tmp_path).publish(texts.keys[:2], np.array(lengths, int), torch.zeros(3, HIDDEN), seconds=1)
    assert not list(tmp_path.iterdir())


def test_a_cache_travels_to_another_process(cache: ActivationCache, texts: Corpus) -> None:
    where = cache.locate(texts.keys)
    expected = cache.read(where)

    copy, place = pickle.loads(pickle.dumps((cache, where)))

    assert len(pickle.dumps(cache)) < cache.nbytes(where)
    assert torch.equal(copy.read(place), expected)


def test_located_entries_outlive_their_files(cache: ActivationCache, texts: Corpus) -> None:
    where = cache.locate(texts.keys)
    for path in segments(cache):
        path.unlink()

    assert torch.equal(cache.packed(where)[0], texts.packed())
    with pytest.raises(UserError, match="start the run again"):
        pickle.loads(pickle.dumps(cache)).read(where)


def test_the_disk_is_asked_once_while_memory_holds_what_was_read(
    cache: ActivationCache, texts: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, asked = cache.locate(texts.keys), Counter[int]()
    turn = count()

    def read() -> None:
        with monkeypatch.context() as patch:
            now = next(turn)
            patch.setattr(Segment, "advise", lambda *_: asked.update([now]))
            cache.read(where)

    monkeypatch.setattr(store, "_disk_faults", lambda: 0)
    for _ in range(2):
        read()
    monkeypatch.setattr(store, "_disk_faults", iter(range(9)).__next__)  # pages have to come from the disk again
    for _ in range(2):
        read()

    assert asked == {0: 60, 3: 60}


@pytest.mark.parametrize("storage", STORAGE)
def test_a_batch_in_use_is_never_written_over(tmp_path: Path, texts: Corpus, storage: str) -> None:
    cache = opened(tmp_path, storage)
    cache.publish(texts.keys, texts.lengths, texts.packed(), seconds=1)
    where, rng = cache.locate(texts.keys), np.random.default_rng(0)
    held: list[tuple[torch.Tensor, torch.Tensor]] = []

    for turn in range(60):
        x = cache.read(where[rng.permutation(60)[: rng.integers(1, 9)]])
        part = (x, x[0], x.numpy()[-1:], x.flatten().detach())[turn % 4]  # whatever shares its memory holds it
        held.append((torch.as_tensor(part), torch.as_tensor(part).clone()))
        del x, part
        if turn % 7 == 0:
            del held[:: rng.integers(2, 4)]
        assert all(torch.equal(now, then) for now, then in held)


def test_memory_is_used_again_and_little_of_it_is_kept() -> None:
    buffers = Buffers()

    first = buffers.empty((3, 1000), torch.float32)
    place = first.data_ptr()
    del first
    assert buffers.empty((1500, 2), torch.float32).data_ptr() == place
    assert buffers.empty((0, 4), torch.int8).shape == (0, 4)

    several = [buffers.empty((1000,), torch.float32) for _ in range(50)]
    assert len({x.data_ptr() for x in several}) == 50
    assert all(x.data_ptr() % 64 == 0 for x in several)
    del several
    assert not pickle.loads(pickle.dumps(buffers))._free
    assert len(buffers._free) == KEPT


def test_a_small_batch_does_not_hold_much_memory() -> None:
    buffers = Buffers()
    del (large := [buffers.empty((100 << 20,), torch.uint8)])[:]
    assert large == []

    small = [buffers.empty((1000,), torch.uint8) for _ in range(9)]

    assert [len(free) >> 20 for free in buffers._free] == [128]
    assert all(each.untyped_storage().nbytes() == 1000 for each in small)
