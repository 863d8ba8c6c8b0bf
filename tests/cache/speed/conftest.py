from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from er.cache.store import ActivationCache
from tests.cache.speed.leveldb import filled
from tests.cache.speed.shelf import ENTRIES, SPACE, WIDTH, Shelf, published


@pytest.fixture(scope="package")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    root = tmp_path_factory.mktemp("shelf")
    keys, lengths = published(root, SPACE, WIDTH, ENTRIES, (64 << 20) // (2 * WIDTH))
    cache = ActivationCache(root, SPACE, WIDTH)
    activations = torch.cat([cache.packed(part, torch.float16)[0] for part in np.array_split(cache.locate(keys), 50)])
    return Shelf(root, keys, lengths, activations)


@pytest.fixture(scope="module")
def entry_db(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A LevelDB with one pickled tensor an entry: the original's store, if it had kept entries apart."""
    rows = torch.split(shelf.activations, shelf.lengths.tolist())
    entries = ((key.tobytes(), row.numpy()) for key, row in zip(shelf.keys, rows, strict=True))
    db = filled(tmp_path_factory.mktemp("entries"), entries)
    yield db
    db.close()


@pytest.fixture(autouse=True)
def _one_copy_at_a_time() -> None:
    gc.collect()
