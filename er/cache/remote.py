"""Spaces in any place that fsspec knows: what lies there, and files that come and go whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from er.cache.publish import TEMPORARY
from er.cache.spaces import DIGEST, one
from er.errors import UserError

CHUNK = 4 << 20


@dataclass(frozen=True)
class Remote:
    """A directory of spaces, laid out as it is here."""

    url: str
    files: AbstractFileSystem
    root: str

    @classmethod
    def at(cls, url: str) -> Remote:
        """The directory that a URL stands for."""
        with reaching(url):
            files, root = url_to_fs(url)
        return cls(url.rstrip("/"), files, root.rstrip("/"))

    def spaces(self, prefix: str | None) -> list[str]:
        """The names of all spaces there, or of the one that begins so."""
        names = sorted(name for name in self.sizes() if DIGEST.fullmatch(name))
        if not names:
            raise UserError(f"There are no activations at {self.url}: was it pushed there, to just this place?")
        return names if prefix is None else [one(names, prefix, self.url)]

    def sizes(self, folder: str = "") -> dict[str, int]:
        """What lies in a folder there, and how many bytes each file has."""
        with reaching(self.url):
            self.files.invalidate_cache()
            try:
                found = self.files.ls(f"{self.root}/{folder}".rstrip("/"), detail=True)
            except FileNotFoundError:
                return {}
            return {each["name"].rstrip("/").rsplit("/", 1)[-1]: each["size"] or 0 for each in found}

    def chunks(self, path: str) -> Iterator[bytes]:
        """The content of a file there, piece by piece."""
        with reaching(f"{self.url}/{path}"), self.files.open(f"{self.root}/{path}", "rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def put(self, folder: str, name: str, chunks: Iterable[bytes]) -> None:
        """Make a file appear there whole: under another name first, as not every place writes a file at once."""
        home, mark = f"{self.root}/{folder}", f"{TEMPORARY}{name}-"
        temporary = f"{home}/{mark}{uuid4().hex}"
        with reaching(f"{self.url}/{folder}/{name}"):
            self.files.makedirs(home, exist_ok=True)
            with self.files.open(temporary, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
            self.files.mv(temporary, f"{home}/{name}")
            for left in self.sizes(folder):
                if left.startswith(mark):  # of a transfer that was cut off
                    with suppress(FileNotFoundError):
                        self.files.rm_file(f"{home}/{left}")


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turn whatever a file system says into a message that names the place: each has errors of its own kind."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"Cannot reach {url}: {error or type(error).__name__}. What went over is whole, and stays; "
            "the same command goes on from there."
        ) from error
