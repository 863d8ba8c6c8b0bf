"""Reads every byte of a cache, names what is damaged, and drops it where that is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from er.cache import manifest
from er.cache.publish import locked, writing
from er.cache.segment import Segment, verify
from er.cache.spaces import OtherFormat, Undescribed, described, segments, sizes
from er.cache.store import IDENTITY
from er.errors import UserError


@dataclass
class Verdict:
    """What was read, and what is wrong."""

    segments: int = 0
    bytes: int = 0
    damaged: dict[Path, list[str]] = field(default_factory=dict)
    """Files that are not what was published, and what is wrong with each, a line for each entry."""
    lost: list[Path] = field(default_factory=list)
    """Segments that were published and never dropped, and are not there."""
    notes: list[str] = field(default_factory=list)
    """Spaces of another version of `er`, which cannot be read, and those that have no description."""

    @property
    def whole(self) -> bool:
        """Whether everything that should be there is, as it was published."""
        return not self.damaged and not self.lost

    def __str__(self) -> str:
        """One line for each thing that is wrong."""
        wrong = [line for lines in self.damaged.values() for line in lines]
        lost = [f"{path} is missing: it was published here, and nobody dropped it." for path in self.lost]
        return "".join(f"{line}\n" for line in (*self.notes, *wrong, *lost))


def examine(directories: Iterable[Path], progress: bool = True) -> Verdict:
    """Read every segment of these spaces, every checksum, and what each space says of itself."""
    verdict = Verdict()
    readable = [directory for directory in directories if _told(directory, verdict)]
    found = {path: size for directory in readable for path, size in sizes(directory).items()}
    total = sum(found.values())
    with tqdm(total=total, unit="B", unit_scale=True, desc="Verifying", disable=not progress) as bar:
        for path, size in found.items():
            if wrong := list(_wrong(path)):
                verdict.damaged[path] = wrong
            bar.update(size)
    verdict.segments, verdict.bytes = len(found), total
    for directory in readable:
        _compare(directory, [path for path in found if path.parent == directory], verdict)
    return verdict


def _compare(directory: Path, found: list[Path], verdict: Verdict) -> None:
    """Hold what is there against the manifest."""
    verdict.lost += manifest.lost(directory)
    if wrong := manifest.wrong(directory):
        verdict.damaged[directory / manifest.MANIFEST] = wrong
    elif unlisted := [path for path in manifest.unlisted(directory, found) if path.exists()]:
        verdict.notes.append(
            f"{len(unlisted)} segments in {directory} are not in its manifest: a builder was killed, or the manifest "
            "was cut short. They are read all the same."
        )


def repair(verdict: Verdict) -> None:
    """Drop what is damaged and forget what is lost: the next run that wants these entries builds them."""
    for path in (*verdict.damaged, *verdict.lost):
        with locked(path.parent), writing(path.parent):
            if path.name == IDENTITY:
                path.unlink()
            elif path.name == manifest.MANIFEST:
                manifest.renew(path.parent, segments(path.parent))
            else:
                manifest.drop(path)


def _told(directory: Path, verdict: Verdict) -> bool:
    """Check a space's description; false where its segments cannot be judged."""
    try:
        said = described(directory)
    except OtherFormat as error:
        verdict.notes.append(str(error))
        return False
    except Undescribed as error:
        verdict.notes += [str(error)] if segments(directory) else []  # else a build has only begun
        return True
    except UserError as error:
        verdict.damaged[directory / IDENTITY] = [str(error)]
        return True
    if widths := set(_widths(directory)) - {said.hidden}:
        verdict.damaged[directory / IDENTITY] = [f"{directory / IDENTITY} says {said.hidden} wide, segments {widths}."]
    return True


def _widths(directory: Path) -> Iterator[int]:
    for path in segments(directory):
        with suppress(UserError, FileNotFoundError):
            if (segment := Segment.open(path)).space == directory.name:
                yield segment.hidden


def _wrong(path: Path) -> Iterator[str]:
    wrong = verify(path)
    if not path.exists():
        return  # dropped since it was listed; if it was lost, the manifest knows
    yield from wrong
    if not wrong and (space := Segment.open(path).space) != path.parent.name:
        yield f"{path} belongs to another space, {space}."
