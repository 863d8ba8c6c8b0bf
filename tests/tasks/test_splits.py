from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from er.errors import UserError
from er.tasks.splits import complete, limited, place

TEXTS = [f"text {i}" for i in range(5_000)]


def test_a_missing_split_is_a_tenth() -> None:
    whole, origin = complete("own", {"train": TEXTS}, str)

    assert origin == {"train": "given", "dev": "derived", "test": "derived"}
    assert {split: round(len(texts) / 500) for split, texts in whole.items()} == {
        "train": 8,
        "dev": 1,
        "test": 1,
    }


def test_splitting_loses_and_repeats_nothing() -> None:
    whole, _ = complete("own", {"train": TEXTS}, str)

    assert sorted(text for texts in whole.values() for text in texts) == sorted(TEXTS)


def test_given_splits_are_left_alone() -> None:
    splits = {"train": ["a"], "dev": ["b"], "test": ["c"]}

    assert complete("own", splits, str)[0] == splits


def test_splitting_does_not_depend_on_order_or_company() -> None:
    shuffled = random.Random(0).sample(TEXTS, len(TEXTS))

    whole, _ = complete("own", {"train": TEXTS}, str)
    again, _ = complete("own", {"train": shuffled[:4_000]}, str)

    for split in whole:
        assert set(again[split]) <= set(whole[split])


def test_equal_texts_stay_together() -> None:
    whole, _ = complete("own", {"train": TEXTS + TEXTS}, str)

    assert not set(whole["train"]) & (set(whole["dev"]) | set(whole["test"]))


def test_too_few_examples_to_split_are_refused() -> None:
    with pytest.raises(UserError, match="3 training examples leaves"):
        complete("own", {"train": TEXTS[:3]}, str)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.randoms(use_true_random=False))
def test_a_limit_keeps_the_same_examples_in_any_order(small: int, large: int, shuffle: random.Random) -> None:
    texts = TEXTS[:200]
    small, large = sorted((small, large))

    kept = limited(texts, large, str)

    assert len(kept) == min(large, 200)
    assert set(limited(texts, small, str)) <= set(kept)
    assert set(limited(shuffle.sample(texts, 200), large, str)) == set(kept)
    assert kept == [text for text in texts if text in set(kept)]


def test_a_fraction_is_that_many_examples() -> None:
    assert limited(TEXTS, 0.1, str) == limited(TEXTS, len(TEXTS) // 10, str)
    assert limited(TEXTS, 1.0, str) == TEXTS


def test_a_limit_is_not_the_beginning_of_the_file() -> None:
    kept = limited(TEXTS, 1_000, str)

    assert 400 < sum(TEXTS.index(text) < 2_500 for text in kept) < 600


def test_a_limit_and_a_split_are_drawn_apart() -> None:
    train = complete("own", {"train": TEXTS}, str)[0]["train"]
    kept = limited(train, 1_000, str)

    assert 0.5 < sum(place("split", text) for text in kept) / 1_000 < 0.7  # [0.2, 1) has mean 0.6


def test_a_given_split_of_nothing_is_named() -> None:
    with pytest.raises(UserError, match=r"given for dev are empty.*remove it"):
        complete("own", {"train": TEXTS[:20], "dev": [], "test": TEXTS[20:30]}, str)


def test_a_fraction_that_comes_to_nothing_is_said_as_it_was_given() -> None:
    with pytest.raises(UserError, match=r"task\.limit=0\.001 leaves none of 20 training examples"):
        limited(TEXTS[:20], 0.001, str)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(UserError, match=r"task\.limit"):
        limited(TEXTS, limit, str)


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8")))
def test_a_place_lies_in_the_unit_interval(text: str) -> None:
    assert 0 <= place("split", text) < 1


def test_places_never_change() -> None:
    # These decide which example is trained on: another hash is another data set under the old name.
    assert [round(place("split", text), 6) for text in ("", "text", "ü")] == [0.96436, 0.879114, 0.739844]
