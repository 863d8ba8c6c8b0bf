"""Sentences put together from words that were tokenised once are what the tokenizer makes of them whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from er.tasks.words import Cut, cut
from tests.tasks.tokenizer_kinds import KINDS

Sentences = list[list[str]]


@pytest.fixture(scope="module", params=sorted(KINDS))
def each(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """Every kind of tokenizer in turn."""
    return KINDS[request.param](tmp_path_factory.mktemp("tokenizer"))


word = st.text(
    st.one_of(st.sampled_from("abcdefghitel-.'%(25ä语"), st.characters(categories=["L", "N", "P", "S"])), min_size=1
)
sentences = st.lists(st.lists(word, min_size=1, max_size=9), min_size=1, max_size=4)
examples = settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))


def rows(found: Cut) -> list[list[int]]:
    return [part.tolist() for part in np.split(found.ids, np.cumsum(found.lengths)[:-1])]


@examples
@given(said=sentences)
def test_a_sentence_is_tokenised_as_if_it_were_one_text(each: PreTrainedTokenizerBase, said: Sentences) -> None:
    assert rows(cut(each, said, 512, 128)) == [each(" ".join(words))["input_ids"] for words in said]


@examples
@given(said=sentences)
def test_a_word_is_at_its_first_piece(each: PreTrainedTokenizerBase, said: Sentences) -> None:
    if not getattr(each, "add_prefix_space", True) or type(each).__name__ == "PreTrainedTokenizerFast":
        return  # it refuses words, or forgets the spaces between them
    whole = [each(words, is_split_into_words=True) for words in said]

    found = cut(each, said, 512, 128)

    assert rows(found) == [encoding["input_ids"] for encoding in whole]
    owners = [(encoding.word_ids(), range(len(words))) for encoding, words in zip(whole, said, strict=True)]
    assert found.at.tolist() == [ids.index(n) if n in ids else -1 for ids, numbers in owners for n in numbers]


@examples
@given(said=sentences, length=st.integers(8, 30), stride=st.integers(0, 20))
def test_windows_are_those_of_the_tokenizer(
    each: PreTrainedTokenizerBase, said: Sentences, length: int, stride: int
) -> None:
    most = (length - each.num_special_tokens_to_add()) // 2
    options = {"truncation": True, "max_length": length, "stride": min(stride, most)}
    whole = each([" ".join(words) for words in said], return_overflowing_tokens=True, **options)

    found = cut(each, said, length, stride)

    assert rows(found) == whole["input_ids"]
    assert found.owners.tolist() == whole["overflow_to_sample_mapping"]


@examples
@given(said=sentences, length=st.integers(8, 30), stride=st.integers(0, 20))
def test_a_word_is_tagged_where_most_stands_on_both_sides(
    each: PreTrainedTokenizerBase, said: Sentences, length: int, stride: int
) -> None:
    special, before = each.num_special_tokens_to_add(), int(cut(each, [["a"]], 512, 0).at[0])
    step = length - special - min(stride, (length - special) // 2)
    places = cut(each, said, 512, 0).at - before

    found = cut(each, said, length, stride)

    owners = np.repeat(np.arange(len(said)), [len(words) for words in said])
    for owner, place, window, at in zip(owners, places, found.window, found.at, strict=True):
        windows = np.flatnonzero(found.owners == owner)
        begins = step * np.arange(len(windows))
        around = np.minimum(place - begins, begins + found.lengths[windows] - special - 1 - place)
        best = int(around.argmax())
        assert (window, at) == ((-1, -1) if place < 0 else (windows[best], place - begins[best] + before))


def test_nothing_is_no_window(each: PreTrainedTokenizerBase) -> None:
    assert [len(part) for part in cut(each, [], 16, 4)] == [0] * 5
