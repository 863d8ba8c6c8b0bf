"""What identifies a cached activation: the space it was computed in, and the input it was computed from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import repeat
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FORMAT = 1
"""Of spaces and segments; raise it when the code that fills a segment changes meaning."""

KEY = np.dtype("V16")
"""One entry's key as an array element: opaque bytes, compared as a whole."""

Keys: TypeAlias = NDArray[np.void]
Ints: TypeAlias = NDArray[np.integer[Any]]
Ids: TypeAlias = Sequence[int] | Ints


@dataclass(frozen=True)
class Space:
    """Everything that can change a cached activation, and nothing else.

    Task, split, batch size and device are absent on purpose: they change which entries are wanted and
    how fast they come, not what an entry holds.
    """

    weights: str
    """Digest of the frozen layers' tensors and configuration, not of a name or a path."""
    cut_layer: int
    compute_dtype: str
    storage_dtype: str
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """The space's name on disk: 32 hexadecimal digits over all fields."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return blake2b(canonical.encode(), digest_size=16).hexdigest()


def entry_key(input_ids: Ids, token_type_ids: Ids | None = None, start: int = 0) -> bytes:
    """The 16 bytes that stand for one input, given without its padding.

    Type ids count only where one of them is not zero, so a model that has none shares nothing less. Nor does `start`
    count where it is 0, the position of an input's first token: it is the one thing beside the ids that an encoder with
    absolute positions sees of a text.
    """
    ids = _int32(input_ids)
    types = _int32(() if token_type_ids is None else token_type_ids)
    if types.size not in (0, ids.size):
        raise ValueError(f"{ids.size} input ids but {types.size} type ids: both must come without padding.")
    digest = blake2b(ids.size.to_bytes(8, "little"), digest_size=16)  # framed: ids never read as type ids
    digest.update(ids.tobytes())
    if types.any():
        digest.update(types.tobytes())
    if start:
        digest.update(b"@" + int(start).to_bytes(8, "little"))  # never read as type ids: those are 4 bytes each
    return digest.digest()


def entry_keys(
    input_ids: Iterable[Ids], token_type_ids: Iterable[Ids] | None = None, starts: Iterable[int] | None = None
) -> Keys:
    """The keys of many inputs, as an array of `KEY`."""
    ids = list(input_ids)
    types = repeat(None, len(ids)) if token_type_ids is None else token_type_ids
    begins = repeat(0, len(ids)) if starts is None else starts
    return np.array([entry_key(*each) for each in zip(ids, types, begins, strict=True)], dtype=KEY)


def _int32(ids: Ids) -> NDArray[np.int32]:
    given = np.asarray(ids)
    narrow = given.astype("<i4")
    if given.ndim != 1 or not np.array_equal(narrow, given):  # numpy wraps silently; two inputs would be one
        raise ValueError(f"Token ids must be one row of 32-bit integers, got {given.dtype} {given.shape}.")
    return narrow
