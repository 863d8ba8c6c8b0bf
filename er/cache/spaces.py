"""What lies in a cache directory: its spaces, what each holds, and what is none of ours."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np

from er.cache.key import FORMAT, Space
from er.cache.manifest import MANIFEST
from er.cache.publish import LOCK, TEMPORARY
from er.cache.segment import Segment
from er.cache.store import IDENTITY, SEGMENT
from er.cache.usage import MARKER, last_used
from er.errors import UserError

log = getLogger(__name__)

DIGEST = re.compile(r"[0-9a-f]{32}")

BESIDE = ("converted", "tokens")
"""Folders of ours that may lie beside the spaces: weights in safetensors, and tokenised texts."""


class OtherFormat(UserError):
    """A space that another version of `er` wrote."""


class Undescribed(UserError):
    """A space that does not say what it is."""


@dataclass(frozen=True)
class Description:
    """What a space says of itself."""

    space: Space
    hidden: int
    model: str
    """What the model was called by whoever filled the space first: a name, no identity."""
    created: float
    """When, in seconds since 1970."""


@dataclass(frozen=True)
class Listed:
    """One space, as it is listed."""

    directory: Path
    model: str
    space: Space
    hidden: int
    entries: int
    tokens: int
    bytes: int
    created: float
    used: float
    damaged: int
    """Segments that cannot be opened."""


def directories(root: Path) -> list[Path]:
    """The directories of the spaces under `root`, whatever state they are in; none where there is no `root`."""
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(
            f"Cannot read the cache at {root}: {error.strerror}. Point paths.cache at a directory."
        ) from error
    return [root / name for name in names if DIGEST.fullmatch(name) and (root / name).is_dir()]


def chosen(root: Path, prefix: str | None) -> list[Path]:
    """All spaces, or the one whose name begins so."""
    found = directories(root)
    if prefix is None:
        return found
    return [root / one([path.name for path in found], prefix, str(root))]


def readable(found: Iterable[Path]) -> list[Path]:
    """Those spaces that this version can read; the others are named in the log."""
    kept = []
    for directory in found:
        try:
            described(directory)
        except OtherFormat as error:
            log.warning("Left out: %s", error)
            continue
        except Undescribed:
            pass  # its segments say what they are
        kept.append(directory)
    return kept


def one(names: list[str], prefix: str, place: str) -> str:
    """The one name that begins so."""
    fitting = [name for name in names if name.startswith(prefix)]
    if len(fitting) != 1 or not prefix:
        raise UserError(
            f"space={prefix}: {len(fitting) or 'none'} of the {len(names)} spaces in {place} begin so. "
            "Give the beginning of one: `er cache action=list` shows them."
        )
    return fitting[0]


def segments(directory: Path) -> list[Path]:
    """The segments that are published in a space."""
    return sorted(path for path in _listed(directory) if SEGMENT.fullmatch(path.name))


def sizes(directory: Path) -> dict[Path, int]:
    """The segments of a space, and how many bytes each has."""
    found = {}
    for path in segments(directory):
        with suppress(FileNotFoundError):  # dropped while we look
            found[path] = path.stat().st_size
    return found


def ours(path: Path) -> bool:
    """Tell whether a file in a space is one that `er` puts there."""
    named = path.name in (IDENTITY, LOCK, MARKER, MANIFEST) or SEGMENT.fullmatch(path.name)
    return bool(named or path.name.startswith(TEMPORARY)) and not path.is_dir()


def foreign(root: Path) -> list[Path]:
    """What lies in a cache and was not put there by `er`: it is named, and left alone."""
    homes = directories(root)
    beside = [path for path in _listed(root) if path not in homes and path.name not in BESIDE]
    return sorted(beside + [path for home in homes for path in _listed(home) if not ours(path)])


def described(directory: Path) -> Description:
    """Read what a space says of itself, or say why that cannot be believed."""
    path = directory / IDENTITY
    try:
        return description(directory, path.read_bytes())
    except FileNotFoundError:
        raise Undescribed(f"{path} is missing: the next build that adds to this space writes it again.") from None
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error


def description(directory: Path, text: bytes) -> Description:
    """Return what this text says of the space in `directory`, if it can be believed."""
    path = directory / IDENTITY
    try:
        said = json.loads(text)
        _check_format(directory, said["space"])
        space, created = Space(**said["space"]), datetime.fromisoformat(said["created"]).timestamp()
        found = Description(space, int(said["hidden"]), str(said["about"].get("model", "?")), created)
    except OtherFormat:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is unreadable ({error}). Delete {directory}: it is rebuilt.") from error
    if space.digest != directory.name:
        raise UserError(f"{path} describes another space, {space.digest}. Delete {directory}: it is rebuilt.")
    return found


def spaces(root: Path) -> list[Listed]:
    """List the spaces under `root` that can be read, by model, cut and dtype."""
    found = []
    for directory in directories(root):
        with suppress(UserError):
            found.append(_read(directory, described(directory)))
    return sorted(found, key=lambda each: (each.model, each.space.cut_layer, each.space.storage_dtype))


def unreadable(root: Path) -> list[str]:
    """Say of each other space why it cannot be listed."""
    return list(_refusals(root))


def size(directory: Path) -> int:
    """Bytes of everything below a directory."""
    total = 0
    for path, _, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):  # dropped while we look
                total += os.lstat(os.path.join(path, name)).st_size
    return total


def _read(directory: Path, said: Description) -> Listed:
    opened, damaged = [], 0
    for path in segments(directory):
        try:
            opened.append(Segment.open(path))
        except FileNotFoundError:
            continue  # dropped while we look
        except UserError:
            damaged += 1
    keys = [segment.table.keys for segment in opened]
    return Listed(
        directory,
        said.model,
        said.space,
        said.hidden,
        len(np.unique(np.concatenate(keys))) if keys else 0,
        sum(segment.tokens for segment in opened),
        sum(segment.size for segment in opened),
        said.created,
        last_used(directory),
        damaged,
    )


def _refusals(root: Path) -> Iterator[str]:
    for directory in directories(root):
        try:
            described(directory)
        except Undescribed as error:
            if segments(directory):  # else nothing was published yet
                yield str(error)
        except UserError as error:
            yield str(error)


def _check_format(directory: Path, said: dict[str, Any]) -> None:
    """The format is part of the name, so what has the name that this format would give it is only damaged."""
    if said["format"] != FORMAT and _digest(said | {"format": FORMAT}) != directory.name:
        raise OtherFormat(
            f"{directory} has format {said['format']}, this er reads and writes {FORMAT}: another version's, and "
            f"left alone. To be rid of it: `er cache action=prune space={directory.name[:12]}`."
        )


def _digest(said: dict[str, Any]) -> str | None:
    try:
        return Space(**said).digest
    except TypeError:
        return None  # fields that only the other format knows


def _listed(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"Cannot read the cache at {directory}: {error.strerror}.") from error
