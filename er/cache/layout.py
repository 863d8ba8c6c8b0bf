"""The bytes of a segment file: safetensors' own layout, and the hashes that make it prove its content.

In the file: a header, padded so that `x` starts on a page; `x` itself, every real token's vector; for int8 a
scale per token; and a table of lengths, keys and checksums. The file's name is the hash of header and table,
and the table holds a hash of every entry, so no byte of it can change unnoticed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from er.cache.codec import Stored
from er.cache.key import FORMAT, KEY, Ints, Keys
from er.errors import UserError

PAGE = 4096
SUFFIX = ".safetensors"
TAGS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "I8"}
"""What safetensors calls the storage dtypes."""
LENGTH, CHECKSUM = np.dtype("<i4"), np.dtype("<u8")
ENTRY_BYTES = LENGTH.itemsize + KEY.itemsize + CHECKSUM.itemsize
"""What an entry takes in the table."""


class Table(NamedTuple):
    """What a segment says of its entries, in their order in the file."""

    lengths: Ints
    keys: Keys
    checksums: NDArray[np.uint64]

    def tobytes(self) -> bytes:
        """The table as it lies at the end of the file."""
        columns = (self.lengths.astype(LENGTH), self.keys, self.checksums.astype(CHECKSUM))
        return b"".join(column.tobytes() for column in columns)

    @classmethod
    def frombytes(cls, table: bytes, entries: int) -> Table:
        """The table that these bytes of a file are."""
        keys = entries * LENGTH.itemsize
        checksums = keys + entries * KEY.itemsize
        return cls(
            np.frombuffer(table, LENGTH, entries),
            np.frombuffer(table, KEY, entries, keys),
            np.frombuffer(table, CHECKSUM, entries, checksums),
        )


def header(space: str, storage: str, stored: Stored, entries: int, seconds: float) -> bytes:
    """The file's first bytes, a whole number of pages."""
    tokens, hidden = stored.rows.shape
    arrays = [
        ("x", TAGS[storage], [tokens, hidden], stored.rows.nbytes),
        ("lengths", "I32", [entries], entries * LENGTH.itemsize),
        ("keys", "U8", [entries, KEY.itemsize], entries * KEY.itemsize),
        ("checksums", "U64", [entries], entries * CHECKSUM.itemsize),
    ]
    if stored.scale is not None:
        arrays.insert(1, ("scale", "F32", [tokens], stored.scale.nbytes))
    text: dict[str, Any] = {"__metadata__": _metadata(space, tokens, entries, seconds)}
    end = 0
    for name, tag, shape, size in arrays:
        text[name] = {"dtype": tag, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    packed = json.dumps(text, separators=(",", ":")).encode()
    packed += b" " * (-(8 + len(packed)) % PAGE)
    return len(packed).to_bytes(8, "little") + packed


def read(path: Path, called: str = "") -> tuple[bytes, dict[str, Any], bytes]:
    """A segment's first bytes, the header in them, and its table, all checked against its size and its name.

    A damaged file is a `UserError`; one that has vanished meanwhile a `FileNotFoundError`. `called` is the name that
    it should have, where it does not have it yet.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(8)
            head += file.read(min(int.from_bytes(head, "little"), size))
            header = json.loads(head[8:])
            end = len(head) + header["checksums"]["data_offsets"][1]
            file.seek(len(head) + header["lengths"]["data_offsets"][0])
            table = file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error}. Check the disk, and who may read it.") from error
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise damaged(path, "its header cannot be read") from error
    if end != size:
        raise damaged(path, f"it has {size:,} bytes, its header says {end:,}")
    if f"{name(head, table)}{SUFFIX}" != (called or path.name):
        raise damaged(path, "its header or its table is not the one that its name stands for")
    return head, header, table


def name(head: bytes, table: bytes) -> str:
    """What a segment with these bytes around its activations is called."""
    digest = xxhash.xxh3_128(head)
    digest.update(table)
    return digest.hexdigest()


def checksum(parts: Iterable[bytes | memoryview]) -> int:
    """The hash of one entry: of its rows, and its scales where it has any."""
    digest = xxhash.xxh3_64()
    for part in parts:
        digest.update(part)
    return digest.intdigest()


def damaged(path: Path, what: str) -> UserError:
    """The error of a segment that is not what was published."""
    return UserError(
        f"{path} is damaged: {what}. Run `er cache action=verify repair=true`: "
        "it drops this segment, and the next run rebuilds its entries."
    )


def _metadata(space: str, tokens: int, entries: int, seconds: float) -> dict[str, str]:
    return {
        "format": str(FORMAT),
        "space": space,
        "tokens": str(tokens),
        "entries": str(entries),
        "seconds": repr(float(seconds)),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
