"""Spans of tokens: from the characters of an answer to where it begins and ends in a window, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

NOWHERE = (0, 0)
"""Both ends at the first token: what a window without an answer is taught."""


class Found(NamedTuple):
    """The likeliest answer in a window: its characters, and the sum of its two logits."""

    start: int
    end: int
    score: float


def span_of(spans: np.ndarray, answers: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Return the first and the last token of the first answer that lies whole in a window.

    `spans` holds the characters of each token, shape (tokens, 2), equal where it is none of the passage's.
    """
    inside = np.flatnonzero(spans[:, 1] > spans[:, 0])
    if not len(inside):
        return NOWHERE
    starts, ends = spans[inside, 0], spans[inside, 1]
    for start, end in answers:
        if starts[0] <= start and end <= ends[-1]:
            first, last = np.searchsorted(starts, start, side="right") - 1, np.searchsorted(ends, end, side="left")
            return int(inside[first]), int(inside[max(first, last)])
    return NOWHERE


def best_span(spans: np.ndarray, logits: np.ndarray, longest: int) -> Found | None:
    """Return the span of at most `longest` of the passage's tokens whose start and end logits sum to most.

    A shorter one wins among equals, then an earlier one. There is none where a window shows no passage.
    """
    inside = np.flatnonzero(spans[:, 1] > spans[:, 0])
    if not len(inside):
        return None
    starts, ends = logits[inside].astype(np.float64).T
    best = (-np.inf, 0, 0)
    for more in range(min(longest, len(inside))):
        sums = starts[: len(inside) - more] + ends[more:]
        first = int(sums.argmax())
        if sums[first] > best[0]:
            best = (float(sums[first]), first, first + more)
    score, first, last = best
    return Found(int(spans[inside[first], 0]), int(spans[inside[last], 1]), score)
