"""Sentences of words as windows of tokens: each distinct word is tokenised once, by itself.

A word is tokenised with the space before it, unless it is the first of its sentence. That is what a tokenizer which
never joins two words makes of the whole sentence, too, in a fraction of the time; and it says which tokens are whose.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Cut(NamedTuple):
    """Windows, and where in them each word is tagged: at its first piece, where most stands on both sides of it."""

    ids: np.ndarray
    """The tokens of all windows, one window behind the other."""
    lengths: np.ndarray
    """Of each window."""
    owners: np.ndarray
    """The sentence that each window is of; the windows of a sentence follow each other."""
    window: np.ndarray
    """For each word of all sentences the window in which it is tagged; -1 where the tokenizer has no piece for it."""
    at: np.ndarray
    """For each word the token of that window, or -1."""


def cut(tokenizer: PreTrainedTokenizerBase, sentences: Sequence[Sequence[str]], length: int, stride: int) -> Cut:
    """Cut sentences into windows of at most `length` tokens that share `stride` of them; half a window at most."""
    ids, counts = _pieces(tokenizer, sentences)
    before, behind = _frame(tokenizer)
    room = length - len(before) - len(behind)
    step = room - min(stride, room // 2)
    pieces = _cumulated(counts)
    ends = pieces[_cumulated([len(words) for words in sentences])]
    many = 1 + np.maximum(0, -(-(np.diff(ends) - room) // step))
    owners = np.repeat(np.arange(len(sentences)), many)
    starts = ends[owners] + step * (np.arange(len(owners)) - _cumulated(many)[owners])
    inside = np.minimum(room, ends[owners + 1] - starts)
    framed = _framed(ids[ranges(starts, inside)], inside, before, behind)
    window = np.where(counts > 0, _window(pieces[:-1], starts, inside, owners), -1)
    at = np.where(counts > 0, pieces[:-1] - starts[window] + len(before), -1)
    return Cut(framed, inside + len(before) + len(behind), owners, window, at)


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return every number of these ranges, one range behind the other."""
    found: np.ndarray = np.repeat(starts - _cumulated(lengths)[:-1], lengths) + np.arange(lengths.sum())
    return found


def _cumulated(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _pieces(tokenizer: PreTrainedTokenizerBase, sentences: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens of all words, one behind the other, and how many each word has."""
    numbers: dict[str, int] = {}
    texts = (f" {word}" if i else word for words in sentences for i, word in enumerate(words))
    which = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), dtype=np.int64)
    if not numbers:
        return np.zeros(0, dtype=np.int32), which
    always = {"add_special_tokens": False, "padding": False, "truncation": False, "verbose": False}
    known = tokenizer(list(numbers), return_attention_mask=False, **always)["input_ids"]
    ids = np.fromiter(chain.from_iterable(known), dtype=np.int32)
    counts = np.array([len(each) for each in known], dtype=np.int64)
    return ids[ranges(_cumulated(counts)[which], counts[which])], counts[which]


def _frame(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the special tokens before and behind a text."""
    encoding = tokenizer("a", padding=False, truncation=False, return_special_tokens_mask=True)
    special = np.flatnonzero(encoding["special_tokens_mask"])
    before = int(np.sum(special == np.arange(len(special))))
    ids = encoding["input_ids"]
    return ids[:before], ids[len(ids) - len(special) + before :]


def _framed(ids: np.ndarray, lengths: np.ndarray, before: list[int], behind: list[int]) -> np.ndarray:
    """Put special tokens around each window."""
    whole = lengths + len(before) + len(behind)
    starts = _cumulated(whole)[:-1]
    framed = np.empty(whole.sum(), dtype=np.int32)
    framed[ranges(starts + len(before), lengths)] = ids
    for i, special in enumerate(before):
        framed[starts + i] = special
    for i, special in enumerate(behind):
        framed[starts + len(before) + lengths + i] = special
    return framed


def _window(token: np.ndarray, starts: np.ndarray, lengths: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Return for each token the window with most on both sides of it, the earlier one of equals.

    Two may show it, since they share half at most: the last that begins before it, and the one before that.
    """
    last = np.searchsorted(starts, token, side="right") - 1
    earlier = np.where(owners[last - 1] == owners[last], np.maximum(last - 1, 0), last)
    around = [np.minimum(token - starts[each], starts[each] + lengths[each] - 1 - token) for each in (earlier, last)]
    return np.where(around[0] >= around[1], earlier, last)
