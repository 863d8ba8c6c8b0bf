from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from er.cache.key import KEY, entry_key, entry_keys
from tests.cache.corpus import SPACE

IDS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=12)
PAIRS = IDS.flatmap(
    lambda ids: st.tuples(st.just(ids), st.lists(st.integers(0, 1), min_size=len(ids), max_size=len(ids)))
)


@pytest.mark.parametrize(
    "change",
    [{"weights": "v"}, {"cut_layer": 4}, {"compute_dtype": "bfloat16"}, {"storage_dtype": "int8"}, {"format": 0}],
)
def test_every_field_of_a_space_changes_its_digest(change: dict[str, str | int]) -> None:
    assert replace(SPACE, **change).digest != SPACE.digest  # type: ignore[arg-type]


def test_a_digest_is_the_same_in_every_process_and_version() -> None:
    assert SPACE.digest == "84fd7eebadd9abf8198f583fce30ad85"


@given(PAIRS, PAIRS)
def test_different_inputs_have_different_keys(
    one: tuple[list[int], list[int]], other: tuple[list[int], list[int]]
) -> None:
    assume(one != other)
    assert entry_key(*one) != entry_key(*other)


@given(IDS)
def test_type_ids_that_are_all_zero_are_no_type_ids(ids: list[int]) -> None:
    assert entry_key(ids, [0] * len(ids)) == entry_key(ids)


@given(PAIRS)
def test_ids_are_never_taken_for_type_ids(pair: tuple[list[int], list[int]]) -> None:
    ids, types = pair
    assert entry_key(ids + types) != entry_key(ids, types)


@pytest.mark.parametrize(("one", "other"), [([2, 3], [3, 2]), ([5], [5 + 2**16]), ([1], [1, 0]), ([0], [0, 0])])
def test_what_other_caches_confuse_is_kept_apart(one: list[int], other: list[int]) -> None:
    assert entry_key(one) != entry_key(other)


def test_a_key_does_not_depend_on_the_batch_or_the_kind_of_integer() -> None:
    rows = [[101, 7, 102], [101, 102]]

    keys = entry_keys(rows)

    assert keys.dtype == KEY
    assert [key.tobytes() for key in keys] == [entry_key(row) for row in rows]
    assert (entry_keys([np.array(row, np.int16) for row in rows], [[0, 0, 0], [0, 0]]) == keys).all()
    assert len(entry_keys([])) == 0


@pytest.mark.parametrize("ids", [[2**31], [-(2**31) - 1], [0.5], [[2, 3]], np.array([2**32 + 1])])
def test_ids_that_are_not_one_row_of_32_bits_are_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="32-bit"):
        entry_key(ids)


def test_type_ids_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="without padding"):
        entry_key([1, 2], [0, 0, 0])


@given(PAIRS, st.integers(1, 2**40), st.integers(1, 2**40))
def test_a_start_of_its_own_makes_another_key(pair: tuple[list[int], list[int]], start: int, other: int) -> None:
    assert entry_key(*pair, 0) == entry_key(*pair)
    assert entry_key(*pair, start) != entry_key(*pair)
    assert (entry_key(*pair, start) == entry_key(*pair, other)) == (start == other)
    assert entry_key(pair[0], [1] * len(pair[0]), start) != entry_key(pair[0], None, start)


def test_keys_are_what_they_were_before_inputs_could_start_elsewhere() -> None:
    assert entry_key([101, 7, 102], [0, 0, 1]).hex() == "21d350dfeb526765607485608fd7f25c"
    assert entry_key([101, 7, 102]).hex() == "d726dafc89db6b82742f7d9cd4ab71df"


def test_many_keys_take_the_starts_of_their_inputs() -> None:
    rows, starts = [[101, 7, 102], [101, 102]], np.array([0, 9])

    keys = entry_keys(rows, starts=starts)

    assert [key.tobytes() for key in keys] == [entry_key(rows[0]), entry_key(rows[1], start=9)]
    with pytest.raises(ValueError, match="zip"):
        entry_keys(rows, starts=[0])
