"""Inputs of several parts: a row of what is read is its parts, one after the other."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from er.cache.codec import STORAGE
from er.errors import UserError
from tests.cache.corpus import HIDDEN, Corpus, opened


@settings(max_examples=25)
@given(
    inputs=st.integers(0, 8), parts=st.integers(1, 3), storage=st.sampled_from(list(STORAGE)), seed=st.integers(0, 99)
)
def test_an_input_of_several_parts_is_their_concatenation(inputs: int, parts: int, storage: str, seed: int) -> None:
    texts = Corpus(10, seed)
    wanted = np.random.default_rng(seed).integers(0, texts.size, (inputs, parts))

    with tempfile.TemporaryDirectory() as root:
        cache = opened(Path(root), storage)
        for half in (slice(None, 4), slice(4, None)):
            cache.publish(texts.keys[half], texts.lengths[half], texts.packed(half), seconds=1)
        where = cache.locate(texts.keys[wanted])
        padded, (packed, lengths) = cache.read(where), cache.packed(where)
        alone = [cache.packed(each)[0] for each in where]
        cache.fetch(where)

        assert where.shape == (inputs, parts)
        assert cache.nbytes(where) == cache.size(texts.lengths[np.unique(wanted)])
        assert cache.cost(where) == pytest.approx(cache.cost(cache.locate(texts.keys[np.unique(wanted)])))
    assert lengths.tolist() == texts.lengths[wanted].sum(axis=1).tolist()
    assert padded.shape == (inputs, max(lengths.tolist(), default=0), HIDDEN)
    assert torch.equal(packed, torch.cat([torch.empty(0, HIDDEN), *alone]))
    for row, x in zip(padded, alone, strict=True):
        assert torch.equal(row[: len(x)], x)
        assert not row[len(x) :].any()


def test_inputs_of_one_part_are_read_as_inputs_without_parts(tmp_path: Path) -> None:
    texts, cache = Corpus(), opened(tmp_path)
    cache.publish(texts.keys, texts.lengths, texts.packed(), seconds=1)
    where = cache.locate(texts.keys)

    assert torch.equal(cache.read(where[:, None]), cache.read(where))
    assert torch.equal(cache.packed(where[:, None])[0], cache.packed(where)[0])


def test_a_part_that_is_not_there_is_told_before_anything_is_read(tmp_path: Path) -> None:
    texts, cache = Corpus(4), opened(tmp_path)
    with pytest.raises(UserError, match=r"4 of 4 inputs are not in the cache"):
        cache.locate(texts.keys.reshape(2, 2))
    cache.publish(texts.keys[:3], texts.lengths[:3], texts.packed(slice(3)), seconds=1)
    with pytest.raises(UserError, match=r"1 of 4 inputs are not in the cache"):
        cache.locate(texts.keys.reshape(2, 2))
