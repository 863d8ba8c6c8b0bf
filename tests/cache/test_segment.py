from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from er.cache.layout import PAGE
from er.cache.segment import Segment, verify
from er.cache.store import ActivationCache
from er.errors import UserError
from tests.cache.corpus import HIDDEN, SPACE, Corpus, content, equal, opened, segments

STORAGES = ("float32", "int8")


@pytest.fixture(params=STORAGES)
def published(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, Corpus]:
    """One segment on disk: its storage dtype, its path, and what is in it."""
    texts, cache = Corpus(30), opened(tmp_path, request.param)
    cache.publish(texts.keys, texts.lengths, texts.packed(), seconds=2.5)
    return request.param, segments(cache)[0], texts


def test_stock_safetensors_opens_a_segment(published: tuple[str, Path, Corpus]) -> None:
    storage, path, texts = published

    stock = load_file(path)

    x = stock["x"] * stock["scale"][:, None] if storage == "int8" else stock["x"]
    assert torch.allclose(x, texts.packed(), atol=0 if storage == "float32" else 0.02)
    assert stock["lengths"].tolist() == texts.lengths.tolist()
    assert stock["keys"].numpy().tobytes() == texts.keys.tobytes()


def test_a_segment_says_what_it_is(published: tuple[str, Path, Corpus]) -> None:
    storage, path, texts = published

    segment = Segment.open(path)

    assert (segment.storage, segment.hidden, segment.seconds) == (storage, HIDDEN, 2.5)
    assert segment.tokens == texts.lengths.sum()
    assert segment.blocks[0].offset % PAGE == 0
    assert verify(path) == []


def flip(data: bytearray, place: int, rng: random.Random) -> None:
    data[place] ^= 1 << rng.randrange(8)


def cut(data: bytearray, place: int, rng: random.Random) -> None:
    del data[place:]


@pytest.mark.parametrize("damage", [flip, cut])
@pytest.mark.parametrize("places", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_damage_anywhere_is_found_and_never_served(
    damage: Callable[[bytearray, int, random.Random], None], places: int, published: tuple[str, Path, Corpus]
) -> None:
    storage, path, texts = published
    whole, right, rng = path.read_bytes(), content(opened(path.parents[1], storage), texts), random.Random(0)
    edges = [0, 7, 8, PAGE - 1, PAGE, len(whole) - 1]

    for place in edges + rng.sample(range(len(whole)), places):
        data = bytearray(whole)
        damage(data, place, rng)
        path.write_bytes(data)

        assert str(path) in verify(path)[0]
        with pytest.raises(UserError, match=r"is damaged.*er cache action=verify repair=true"):
            content(opened(path.parents[1], storage), texts)

    path.write_bytes(whole)
    assert equal(content(opened(path.parents[1], storage), texts), right)


def test_damage_leaves_the_other_entries_of_its_segment_readable(published: tuple[str, Path, Corpus]) -> None:
    storage, path, texts = published
    data = bytearray(path.read_bytes())
    data[PAGE] ^= 1  # in the first entry's first row
    path.write_bytes(data)

    cache = opened(path.parents[1], storage)

    assert len(verify(path)) == 1
    assert "entry 0" in verify(path)[0]
    assert cache.read(cache.locate(texts.keys[1:])).isfinite().all()
    with pytest.raises(UserError, match="entry 0"):
        cache.read(cache.locate(texts.keys[:1]))


def test_a_segment_cut_short_between_open_and_read_is_found(published: tuple[str, Path, Corpus]) -> None:
    storage, path, texts = published
    cache = opened(path.parents[1], storage)
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(UserError, match="is damaged: it has"):
        cache.locate(texts.keys)


def test_a_segment_of_another_format_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, cache = Corpus(30), opened(tmp_path)
    monkeypatch.setattr("er.cache.layout.FORMAT", 0)

    with pytest.raises(UserError, match=rf"has format 0, not 1: delete {cache.directory}"):
        cache.publish(texts.keys, texts.lengths, texts.packed(), seconds=1)
    with pytest.raises(UserError, match=r"has format 0, not 1"):
        opened(tmp_path)


def test_a_segment_that_vanishes_is_verified_as_missing(published: tuple[str, Path, Corpus]) -> None:
    _, path, _ = published
    path.unlink()
    assert str(path) in verify(path)[0]


def test_a_segment_of_another_space_is_refused(published: tuple[str, Path, Corpus]) -> None:
    storage, path, _ = published
    other = replace(SPACE, weights="other", storage_dtype=storage)
    home = path.parents[1] / other.digest
    home.mkdir()
    path.rename(home / path.name)

    with pytest.raises(UserError, match=r"belongs: delete it"):
        ActivationCache(path.parents[1], other, HIDDEN)
