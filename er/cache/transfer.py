"""Takes spaces to another place and back, segment by segment: only what is missing travels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

from tqdm import tqdm

from er.cache import manifest
from er.cache.publish import publish, staged, writing
from er.cache.remote import CHUNK, Remote
from er.cache.segment import Segment, verify
from er.cache.spaces import OtherFormat, described, description, readable, sizes
from er.cache.store import IDENTITY, SEGMENT
from er.cache.usage import use
from er.errors import UserError

log = getLogger(__name__)


@dataclass(frozen=True)
class Travelled:
    """The segments and bytes that went over, and the segments that were there already."""

    segments: int
    bytes: int
    there: int


def push(directories: Iterable[Path], url: str, progress: bool = True) -> Travelled:
    """Send the segments of these spaces that are not at `url` yet, each read first and found to be right."""
    remote = Remote.at(url)
    homes = readable(directories)
    uses = [use(home) for home in homes]  # nobody prunes them meanwhile
    found = {path: size for home in homes for path, size in sizes(home).items()}
    there = {home: remote.sizes(home.name) for home in homes}
    todo = {path: size for path, size in found.items() if there[path.parent].get(path.name) != size}
    with _bar("Sending", todo, progress) as bar:
        for path in todo:
            _send(remote, path, bar)
    uses.clear()
    return Travelled(len(todo), sum(todo.values()), len(found) - len(todo))


def pull(
    root: Path, url: str, prefix: str | None, room: Callable[[int], None] = lambda need: None, progress: bool = True
) -> Travelled:
    """Fetch the segments at `url` that are not here yet, each published only if every byte of it is right.

    `room` is told beforehand how many bytes are to come. What is damaged there is named at the end, and not taken.
    Segments that were merged after they were pushed are there twice over; `compact` drops what is double.
    """
    remote = Remote.at(url)
    found = {
        root / space / name: size
        for space in remote.spaces(prefix)
        if _described(remote, root / space)
        for name, size in remote.sizes(space).items()
        if SEGMENT.fullmatch(name)
    }
    todo = {path: size for path, size in found.items() if not path.exists()}
    room(sum(todo.values()))
    with _bar("Fetching", todo, progress) as bar:
        refused = [wrong for path in todo for wrong in _fetch(remote, path, bar)]
    if refused:
        raise UserError("\n".join([*refused, "Nothing of that was taken: delete it there, and push it again."]))
    return Travelled(len(todo), sum(todo.values()), len(found) - len(todo))


def _send(remote: Remote, path: Path, bar: tqdm[Any]) -> None:
    space = path.parent.name
    if wrong := verify(path):
        if not path.exists():
            return  # merged into another since, which goes over the next time
        raise UserError(wrong[0])
    if IDENTITY not in remote.sizes(space):
        described(path.parent)  # without it, nobody could fetch what was sent
        remote.put(space, IDENTITY, [(path.parent / IDENTITY).read_bytes()])
    remote.put(space, path.name, _chunks(path, bar))


def _chunks(path: Path, bar: tqdm[Any]) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
            bar.update(len(chunk))


def _described(remote: Remote, directory: Path) -> bool:
    """Fetch a space's description, if it is one that can be read."""
    place = f"{directory.name}/{IDENTITY}"
    if IDENTITY not in remote.sizes(directory.name):
        log.warning("Not fetched: %s/%s is missing, and with it what the space is.", remote.url, place)
        return False
    text = b"".join(remote.chunks(place))
    try:
        description(directory, text)
    except OtherFormat as error:
        log.warning("Not fetched from %s: %s", remote.url, error)
        return False
    except UserError as error:
        raise UserError(f"{remote.url}/{place} is damaged: {error} Nothing was fetched.") from error
    if not (directory / IDENTITY).exists():
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
            publish(directory / IDENTITY, [text])
    return True


def _fetch(remote: Remote, path: Path, bar: tqdm[Any]) -> list[str]:
    """Fetch one segment, or say what is wrong with it."""
    place = f"{path.parent.name}/{path.name}"
    used = use(path.parent)
    try:
        with writing(path.parent), staged(path) as file:
            for chunk in remote.chunks(place):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            _check(Path(file.name), path, f"{remote.url}/{place}")
        with writing(path.parent):
            manifest.add(path)
    except _Refused as refusal:
        return [str(refusal)]
    finally:
        del used
    return []


class _Refused(Exception):
    """What came is not what its name stands for."""


def _check(arrived: Path, path: Path, place: str) -> None:
    if verify(arrived, path.name):
        raise _Refused(f"{place} is damaged: it is not what its name stands for.")
    if (space := Segment.open(arrived, path.name).space) != path.parent.name:
        raise _Refused(f"{place} belongs to another space, {space}.")


def _bar(what: str, todo: dict[Path, int], progress: bool) -> tqdm[Any]:
    return tqdm(
        total=sum(todo.values()),
        unit="B",
        unit_scale=True,
        desc=f"{what} {len(todo)} segments",
        disable=not progress or not todo,
    )
