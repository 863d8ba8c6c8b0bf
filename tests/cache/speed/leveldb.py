"""The original's store, as its description has it: pickled tensors in a LevelDB, under its settings."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

LEVELDB = {"compression": "snappy", "write_buffer_size": 4 << 20, "max_file_size": 2 << 20, "max_open_files": 1024}
"""The original's settings."""


class Tagged(NamedTuple):
    """What the original pickles, for a tensor: it is known by its tag when it is read."""

    kind: str
    value: NDArray[np.float16]


def original(value: bytes) -> torch.Tensor:
    """What the original makes of a value; what is stored in half precision becomes float32 here, on the CPU."""
    return tagged(value).float()


def tagged(value: bytes) -> torch.Tensor:
    """The same, if it delivered what it stores."""
    return torch.from_numpy(pickle.loads(value).value)


def filled(folder: Path, values: Iterable[tuple[bytes, NDArray[np.float16]]], sync: bool = False) -> Any:
    """A LevelDB of these values, opened anew: nothing is left in its write buffer."""
    plyvel = pytest.importorskip("plyvel")
    db = plyvel.DB(str(folder), create_if_missing=True, **LEVELDB)
    for key, value in values:
        db.put(key, pickle.dumps(Tagged("NUMPY", value)), sync=sync)
    db.close()
    return plyvel.DB(str(folder), **LEVELDB)
