"""Where each word of a sentence is tagged: at its first piece, in the window that shows most around it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np

from er.tasks.windows import Windows


def places(cut: Windows, sentences: list[list[str]]) -> Iterator[np.ndarray]:
    """Return for each sentence the window and the position of each of its words, shape (words, 2).

    A word that the tokenizer has no piece for is at (-1, -1).
    """
    for (_, group), words in zip(groupby(range(len(cut.owners)), cut.owners.__getitem__), sentences, strict=True):
        yield _places(cut.spans, list(group), words)


def _places(spans: list[np.ndarray], group: list[int], words: list[str]) -> np.ndarray:
    """Place the words of one sentence, whose text is its words with a space between them."""
    word_at = _word_at(words)
    found = np.full((len(words), 2), -1, dtype=np.int64)
    begins = np.full(len(words), len(word_at) + 1)  # the character where a word's first piece ends
    context = np.full(len(words), -1)
    for window in group:
        position, word, end = _first_pieces(spans[window], word_at)
        if len(position):
            around = np.minimum(position - position[0], position[-1] - position)
            better = (end < begins[word]) | ((end == begins[word]) & (around > context[word]))
            chosen = word[better]
            found[chosen, 0], found[chosen, 1] = window, position[better]
            begins[chosen], context[chosen] = end[better], around[better]
    return found


def _word_at(words: list[str]) -> np.ndarray:
    """Return which word each character of the text belongs to; -1 for the spaces between words."""
    lengths = np.array([len(word) for word in words])
    at = np.repeat(np.arange(len(words)), lengths + 1)
    at[np.cumsum(lengths + 1) - 1] = -1
    return at


def _first_pieces(spans: np.ndarray, word_at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return position, word and last character of the first piece that a window has of each of its words.

    A token that begins with the space before a word is a piece of that word: its last character tells.
    """
    position = np.flatnonzero(spans[:, 1] > spans[:, 0])
    word = word_at[spans[position, 1] - 1]
    before = np.concatenate([[-1], word[:-1]]) if len(word) else word
    first = (word != before) & (word >= 0)
    return position[first], word[first], spans[position, 1][first]
