from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import fsspec
import pytest
import torch

from er.cache.build import build
from er.cache.compact import compact
from er.cache.prune import delete
from er.cache.remote import Remote, reaching
from er.cache.spaces import directories
from er.cache.store import ActivationCache
from er.cache.transfer import pull, push
from er.cache.verify import examine
from er.errors import UserError
from tests.cache.corpus import Corpus, content, equal, opened, segments

build_small = partial(build, segment_bytes=1 << 12, batch_tokens=50, progress=False)


def filled(root: Path, texts: Corpus, storage: str = "float32") -> ActivationCache:
    cache = opened(root, storage)
    build_small(cache, texts.keys, texts.lengths, texts.encode)
    return cache


@pytest.fixture
def texts() -> Corpus:
    return Corpus(60)


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place to send spaces to."""
    if request.param == "file":
        yield f"file://{tmp_path}/there"
    else:
        yield "memory://bucket/there"
        if fsspec.filesystem("memory").exists("/bucket"):
            fsspec.filesystem("memory").rm("/bucket", recursive=True)


def send(cache: ActivationCache, url: str) -> int:
    return push([cache.directory], url, progress=False).segments


def fetch(root: Path, url: str, prefix: str | None = None) -> int:
    return pull(root, url, prefix, progress=False).segments


def remote(url: str, path: Path) -> tuple[fsspec.AbstractFileSystem, str]:
    """Where a local file lies remotely."""
    files, root = fsspec.core.url_to_fs(url)
    return files, f"{root}/{path.parent.name}/{path.name}"


def overwritten(url: str, path: Path, change: Callable[[bytes], bytes]) -> None:
    files, place = remote(url, path)
    data = files.cat_file(place)
    with files.open(place, "wb") as file:
        file.write(change(data))


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_there_and_back_is_the_same_and_only_what_is_missing_travels(
    tmp_path: Path, texts: Corpus, url: str, storage: str
) -> None:
    here = filled(tmp_path / "here", texts, storage)
    count = len(segments(here))

    assert (send(here, url), send(here, url)) == (count, 0)
    assert (fetch(tmp_path / "back", url), fetch(tmp_path / "back", url)) == (count, 0)

    back = opened(tmp_path / "back", storage)
    assert equal(content(back, texts), content(here, texts))
    assert [path.read_bytes() for path in segments(back)] == [path.read_bytes() for path in segments(here)]
    assert examine([back.directory], progress=False).whole
    more = Corpus(70, seed=1)
    build_small(here, more.keys, more.lengths, more.encode)
    new = len(segments(here)) - count
    assert (send(here, url), fetch(tmp_path / "back", url)) == (new, new)


def test_the_union_of_two_caches_meets_in_the_middle(tmp_path: Path, url: str) -> None:
    one, two = Corpus(40), Corpus(40, seed=1)
    a, b = filled(tmp_path / "a", one), filled(tmp_path / "b", two)

    for cache in (a, b):
        send(cache, url)
    for root in (tmp_path / "a", tmp_path / "b"):
        fetch(root, url)
        for each in (one, two):
            assert equal(content(opened(root), each), each.activations)


def test_one_space_can_be_chosen(tmp_path: Path, texts: Corpus, url: str) -> None:
    wanted, other = filled(tmp_path / "here", texts), filled(tmp_path / "here", texts, "int8")
    push([wanted.directory, other.directory], url, progress=False)

    fetch(tmp_path / "back", url, wanted.directory.name[:8])

    assert [path.name for path in directories(tmp_path / "back")] == [wanted.directory.name]
    with pytest.raises(UserError, match=r"spaces in .* begin so"):
        fetch(tmp_path / "back", url, "xyz")


def flipped(data: bytes) -> bytes:
    return data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]


@pytest.mark.parametrize("change", [flipped, lambda data: data[:-1], lambda data: b"", lambda data: data + b"x"])
def test_a_damaged_remote_segment_is_named_and_not_taken(
    tmp_path: Path, texts: Corpus, url: str, change: Callable[[bytes], bytes]
) -> None:
    here = filled(tmp_path / "here", texts)
    send(here, url)
    bad = segments(here)[1]
    overwritten(url, bad, change)

    with pytest.raises(UserError, match=rf"{bad.name} is damaged.*(?s:.*)Nothing of that was taken"):
        fetch(tmp_path / "back", url)

    back = opened(tmp_path / "back")
    assert {path.name for path in segments(back)} == {path.name for path in segments(here)} - {bad.name}
    assert not list(back.directory.glob(".tmp-*"))
    assert examine([back.directory], progress=False).whole


def test_a_remote_file_that_was_cut_off_is_sent_again(tmp_path: Path, texts: Corpus, url: str) -> None:
    here = filled(tmp_path / "here", texts)
    send(here, url)
    overwritten(url, segments(here)[0], lambda data: data[:-1])

    assert send(here, url) == 1
    assert fetch(tmp_path / "back", url) == len(segments(here))


def test_a_remote_segment_of_another_space_is_refused(tmp_path: Path, texts: Corpus, url: str) -> None:
    here, other = filled(tmp_path / "here", texts), filled(tmp_path / "here", texts, "int8")
    push([here.directory, other.directory], url, progress=False)
    files, place = remote(url, segments(here)[0])
    files.mv(place, place.replace(here.directory.name, other.directory.name))

    with pytest.raises(UserError, match="belongs to another space"):
        fetch(tmp_path / "back", url)


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"space": {"format": 1}}'])
def test_a_remote_description_that_cannot_be_believed_is_named(
    tmp_path: Path, texts: Corpus, url: str, text: bytes
) -> None:
    here = filled(tmp_path / "here", texts)
    send(here, url)
    overwritten(url, here.directory / "space.json", lambda _: text)

    with pytest.raises(UserError, match=r"space.json is damaged.*Nothing was fetched"):
        fetch(tmp_path / "back", url)
    assert not (tmp_path / "back").exists()


def test_a_remote_space_of_another_version_is_named_and_left(
    tmp_path: Path, texts: Corpus, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    here = filled(tmp_path / "here", texts)
    send(here, url)
    files, root = fsspec.core.url_to_fs(url)
    files.makedirs(f"{root}/{'0' * 32}", exist_ok=True)
    files.pipe_file(f"{root}/{'0' * 32}/space.json", b'{"space": {"format": 99}}')

    fetch(tmp_path / "back", url)

    assert [path.name for path in directories(tmp_path / "back")] == [here.directory.name]
    assert "has format 99" in caplog.text


def test_a_push_that_was_cut_off_goes_on_and_leaves_nothing_half(
    tmp_path: Path, texts: Corpus, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, put, left = filled(tmp_path / "here", texts), Remote.put, iter(range(3))

    def stop(place: Remote, folder: str, name: str, chunks: Iterable[bytes]) -> None:
        if next(left, None) is not None:
            return put(place, folder, name, chunks)
        place.files.makedirs(f"{place.root}/{folder}", exist_ok=True)
        place.files.pipe_file(f"{place.root}/{folder}/.tmp-{name}-dead", b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Remote, "put", stop)
    with pytest.raises(KeyboardInterrupt):
        send(here, url)
    monkeypatch.undo()

    there = Remote.at(url).sizes(here.directory.name)
    assert len([name for name in there if name.endswith(".safetensors")]) == 2
    assert any(name.startswith(".tmp-") for name in there)
    assert send(here, url) == len(segments(here)) - 2
    assert not any(name.startswith(".tmp-") for name in Remote.at(url).sizes(here.directory.name))
    assert fetch(tmp_path / "back", url) == len(segments(here))


def test_a_pull_that_was_cut_off_goes_on(
    tmp_path: Path, texts: Corpus, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, chunks, left = filled(tmp_path / "here", texts), Remote.chunks, iter(range(3))
    send(here, url)

    def stop(place: Remote, path: str) -> Iterator[bytes]:
        if next(left, None) is None:
            yield b"half"
            with reaching(place.url):
                raise ConnectionError("the line went dead")
        yield from chunks(place, path)

    monkeypatch.setattr(Remote, "chunks", stop)
    with pytest.raises(UserError, match=r"line went dead.*the same command goes on"):
        fetch(tmp_path / "back", url)
    monkeypatch.undo()

    back = opened(tmp_path / "back")
    assert len(segments(back)) == 2
    assert not list(back.directory.glob(".tmp-*"))
    assert fetch(tmp_path / "back", url) == len(segments(here)) - 2
    assert equal(content(opened(tmp_path / "back"), texts), texts.activations)


def test_a_damaged_local_segment_is_not_sent(tmp_path: Path, texts: Corpus, url: str) -> None:
    here = filled(tmp_path / "here", texts)
    bad = segments(here)[0]
    bad.write_bytes(flipped(bad.read_bytes()))

    with pytest.raises(UserError, match=bad.name):
        send(here, url)
    assert bad.name not in Remote.at(url).sizes(here.directory.name)


def test_a_reader_keeps_its_entries_and_nobody_prunes_what_travels(
    tmp_path: Path, texts: Corpus, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = filled(tmp_path / "here", texts)
    where, home = reader.locate(texts.keys), reader.directory
    put, tried = Remote.put, []

    def prune_meanwhile(place: Remote, folder: str, name: str, chunks: Iterable[bytes]) -> None:
        tried.append(delete(home))
        put(place, folder, name, chunks)

    monkeypatch.setattr(Remote, "put", prune_meanwhile)
    push([home], url, progress=False)

    assert torch.equal(reader.packed(where)[0], texts.packed())
    assert tried and not any(tried)


def test_nobody_prunes_a_space_while_it_is_pushed(
    tmp_path: Path, texts: Corpus, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = filled(tmp_path / "here", texts).directory
    gc.collect()
    put, tried = Remote.put, []

    def prune_meanwhile(place: Remote, folder: str, name: str, chunks: Iterable[bytes]) -> None:
        tried.append(delete(home))
        put(place, folder, name, chunks)

    monkeypatch.setattr(Remote, "put", prune_meanwhile)
    push([home], url, progress=False)

    assert tried and not any(tried)
    assert delete(home)


def test_segments_merged_since_may_come_twice_and_are_served_once(tmp_path: Path, texts: Corpus, url: str) -> None:
    here = filled(tmp_path / "here", texts)
    send(here, url)
    compact(here.directory, 1 << 20, progress=False)
    assert send(here, url) == 1
    fetch(tmp_path / "back", url)

    back = opened(tmp_path / "back")
    assert equal(content(back, texts), texts.activations)
    compact(back.directory, 1 << 20, progress=False)
    assert len(segments(back)) == 1


def test_the_room_is_asked_for_before_anything_comes(tmp_path: Path, texts: Corpus, url: str) -> None:
    here = filled(tmp_path / "here", texts)
    send(here, url)

    def refuse(need: int) -> None:
        assert need == sum(path.stat().st_size for path in segments(here))
        raise UserError("no room")

    with pytest.raises(UserError, match="no room"):
        pull(tmp_path / "back", url, None, refuse, progress=False)
    assert not list((tmp_path / "back").rglob("*.safetensors"))


@pytest.mark.parametrize("bad", ["nothing://x", "file:///nowhere/at/all"])
def test_a_place_that_is_none_is_named(tmp_path: Path, bad: str) -> None:
    with pytest.raises(UserError, match=bad):
        fetch(tmp_path, bad)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, texts: Corpus) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot reach file://.*file"):
        send(filled(tmp_path / "here", texts), f"file://{tmp_path}/file")
