from __future__ import annotations

import json
import random
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from er.cache.build import build
from er.cache.key import FORMAT
from er.cache.manifest import MANIFEST
from er.cache.spaces import directories, foreign, spaces, unreadable
from er.cache.store import ActivationCache
from er.cache.verify import Verdict, examine, repair
from er.errors import UserError
from tests.cache.corpus import Corpus, content, equal, opened, segments

build_small = partial(build, segment_bytes=1 << 12, batch_tokens=50, progress=False)


def filled(root: Path, texts: Corpus, storage: str = "float32") -> ActivationCache:
    """A cache of several small segments."""
    cache = opened(root, storage)
    build_small(cache, texts.keys, texts.lengths, texts.encode)
    return cache


def examined(root: Path) -> Verdict:
    return examine(directories(root), progress=False)


@pytest.fixture
def texts() -> Corpus:
    return Corpus(120)


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_what_was_built_is_whole(tmp_path: Path, texts: Corpus, storage: str) -> None:
    cache = filled(tmp_path, texts, storage)

    verdict = examined(tmp_path)

    assert verdict.whole and not str(verdict)
    assert verdict.segments == len(segments(cache)) > 3
    assert verdict.bytes == sum(path.stat().st_size for path in segments(cache))


@settings(max_examples=40)
@given(which=st.integers(0, 99), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_damage_anywhere_is_named_and_repaired_by_dropping_one_segment(
    which: int, place: float, bit: int, cut: bool
) -> None:
    texts = Corpus(60)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cache = filled(root, texts)
        path = segments(cache)[which % len(segments(cache))]
        data = bytearray(path.read_bytes())
        at = int(place * len(data))
        data[at] ^= 1 << bit
        path.write_bytes(data[:at] if cut else data)

        verdict = examined(root)
        assert list(verdict.damaged) == [path]
        assert str(path) in str(verdict)
        repair(verdict)

        assert not path.exists()
        after = opened(root)
        absent = after.missing(texts.keys)
        there = np.setdiff1d(np.arange(texts.size), absent)
        assert 0 < len(absent) < texts.size
        packed, _ = after.packed(after.locate(texts.keys[there]))
        assert equal([packed], [texts.packed(there)])
        assert examined(root).whole
        assert build_small(after, texts.keys, texts.lengths, texts.encode).misses == len(absent)
        assert equal(content(opened(root), texts), texts.activations)
        assert examined(root).whole


def test_a_lost_segment_is_named_once_and_forgotten_by_a_repair(tmp_path: Path, texts: Corpus) -> None:
    path = segments(filled(tmp_path, texts))[0]
    path.unlink()

    verdict = examined(tmp_path)
    assert verdict.lost == [path] and not verdict.whole
    assert f"{path} is missing" in str(verdict)
    repair(verdict)

    assert examined(tmp_path).whole
    assert build_small(opened(tmp_path), texts.keys, texts.lengths, texts.encode).misses > 0


@settings(max_examples=20, deadline=None)
@given(cut=st.floats(0, 1))
def test_a_manifest_that_was_cut_off_accuses_no_segment(cut: float) -> None:
    texts = Corpus(60)
    with tempfile.TemporaryDirectory() as folder:
        cache = filled(Path(folder), texts)
        manifest = cache.directory / MANIFEST
        data = manifest.read_bytes()
        manifest.write_bytes(data[: int(cut * len(data))])

        verdict = examined(Path(folder))
        assert not verdict.lost and verdict.damaged.keys() <= {manifest}
        assert bool(str(verdict)) == (cut < 1)
        assert equal(content(opened(Path(folder)), texts), texts.activations)
        repair(verdict)
        repair(Verdict(damaged={segments(cache)[0]: []}))
        build_small(cache, texts.keys, texts.lengths, texts.encode)

        assert examined(Path(folder)).whole


@pytest.mark.parametrize("places", [30, pytest.param(500, marks=pytest.mark.slow)])
def test_a_flipped_bit_in_the_manifest_is_named_and_repaired(tmp_path: Path, texts: Corpus, places: int) -> None:
    cache, rng = filled(tmp_path, texts), random.Random(0)
    manifest = cache.directory / MANIFEST
    whole = manifest.read_bytes()

    for place in [0, 1, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(places))]:
        data = bytearray(whole)
        data[place] ^= 1 << rng.randrange(8)
        manifest.write_bytes(data)

        verdict = examined(tmp_path)
        assert not verdict.whole and str(manifest.parent) in str(verdict)
        repair(verdict)
        assert examined(tmp_path).whole
    assert equal(content(opened(tmp_path), texts), texts.activations)


def test_a_segment_of_another_space_is_damage(tmp_path: Path, texts: Corpus) -> None:
    here, there = filled(tmp_path, texts), filled(tmp_path, texts, "int8")
    moved = segments(here)[0]
    moved.rename(there.directory / moved.name)

    verdict = examined(tmp_path)
    assert list(verdict.damaged) == [there.directory / moved.name]
    assert "another space" in str(verdict)
    repair(verdict)

    assert equal(content(opened(tmp_path, "int8"), texts), content(there, texts))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"x"', "\xff"])
def test_a_broken_description_is_damage_that_a_repair_drops(tmp_path: Path, texts: Corpus, text: str) -> None:
    cache = filled(tmp_path, texts)
    (cache.directory / "space.json").write_bytes(text.encode("latin1"))

    verdict = examined(tmp_path)
    assert list(verdict.damaged) == [cache.directory / "space.json"]
    assert spaces(tmp_path) == [] and "space.json is unreadable" in unreadable(tmp_path)[0]
    repair(verdict)

    assert examined(tmp_path).whole
    assert "is missing" in str(examined(tmp_path))
    assert equal(content(opened(tmp_path), texts), texts.activations)


@pytest.mark.parametrize("change", [{"weights": "other"}, {"cut_layer": 4}, {"format": FORMAT + 1}])
def test_a_description_of_another_space_is_damage(tmp_path: Path, texts: Corpus, change: dict[str, int | str]) -> None:
    identity = filled(tmp_path, texts).directory / "space.json"
    told = json.loads(identity.read_text())
    identity.write_text(json.dumps(told | {"space": told["space"] | change}))

    assert list(examined(tmp_path).damaged) == [identity]


def test_a_width_that_no_segment_has_is_damage(tmp_path: Path, texts: Corpus) -> None:
    identity = filled(tmp_path, texts).directory / "space.json"
    identity.write_text(identity.read_text().replace('"hidden": 12', '"hidden": 13'))

    assert list(examined(tmp_path).damaged) == [identity]


def other_format(root: Path, told: dict[str, object]) -> Path:
    """A space as another version of er may have left it."""
    home = root / ("0" * 31 + "1")
    home.mkdir(parents=True)
    (home / "space.json").write_text(json.dumps(told))
    (home / f"{'1' * 32}.safetensors").write_bytes(b"in another layout")
    return home


@pytest.mark.parametrize("space", [{"format": 2}, {"format": 0, "weights": "w", "unheard": "of"}])
def test_a_space_of_another_version_is_named_and_not_misread(
    tmp_path: Path, texts: Corpus, space: dict[str, object]
) -> None:
    filled(tmp_path, texts)
    home = other_format(tmp_path, {"space": space})

    verdict = examined(tmp_path)

    assert verdict.whole
    assert f"{home} has format {space['format']}" in str(verdict)
    assert [str(home) in line for line in unreadable(tmp_path)] == [True]
    assert len(spaces(tmp_path)) == 1


def test_what_is_not_ours_is_named_and_left_alone(tmp_path: Path, texts: Corpus) -> None:
    cache = filled(tmp_path, texts)
    strangers = [tmp_path / "notes.txt", tmp_path / "folder", cache.directory / "model.safetensors"]
    for path in strangers:
        path.mkdir() if path.name == "folder" else path.write_text("not ours")

    assert foreign(tmp_path) == sorted(strangers)
    repair(examined(tmp_path))
    assert all(path.exists() for path in strangers)


def test_verifying_writes_nothing(tmp_path: Path, texts: Corpus) -> None:
    cache = filled(tmp_path, texts)
    before = {path: path.stat() for path in cache.directory.iterdir()}

    examined(tmp_path)

    assert {path: path.stat().st_mtime_ns for path in cache.directory.iterdir()} == {
        path: status.st_mtime_ns for path, status in before.items()
    }


def test_no_cache_is_whole_and_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    assert examined(tmp_path / "nothing").whole
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot read the cache at .*file.*paths.cache"):
        examined(tmp_path / "file")


def test_a_list_counts_what_cannot_be_opened(tmp_path: Path, texts: Corpus) -> None:
    path = segments(filled(tmp_path, texts))[0]
    path.write_bytes(path.read_bytes()[:-1])

    (listed,) = spaces(tmp_path)

    assert listed.damaged == 1
    assert 0 < listed.entries < texts.size
