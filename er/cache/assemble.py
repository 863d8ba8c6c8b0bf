"""Puts entries together into one tensor: each copied once, from where it is mapped to where it belongs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from torch import Tensor

from er.cache.codec import Bytes, decode_into, memory
from er.cache.segment import Mapped

Place: TypeAlias = tuple[int, int, int, int]
"""The segment of an entry, its number there, its first token there, and how many it has."""


def put(x: Tensor, places: Iterable[Place], stops: Iterable[int], maps: Mapping[int, Mapped], as_stored: bool) -> None:
    """Fill `x`, `(tokens, hidden)`, with these entries, and with zeros from each one's end up to its stop.

    An entry begins where the one before it stops. It is converted to what `x` holds, or, `as_stored`, just copied.
    """
    into, width = memory(x), x.shape[1] * x.itemsize
    if as_stored:
        return _copy(into, width, places, stops, maps)
    begin = 0
    for (segment, _, start, length), stop in zip(places, stops, strict=True):
        decode_into(x[begin : begin + length], maps[segment].stored, start)
        into[(begin + length) * width : stop * width] = 0
        begin = stop


def _copy(into: Bytes, width: int, places: Iterable[Place], stops: Iterable[int], maps: Mapping[int, Mapped]) -> None:
    """As bytes, and in one dimension: what numpy copies with the least ado, as entries are short."""
    begin = 0
    for (segment, _, start, length), stop in zip(places, stops, strict=True):
        start, end = start * width, begin + length * width
        into[begin:end] = maps[segment].rows[start : start + length * width]
        begin = stop * width
        if end < begin:
            into[end:begin] = 0  # here and now: cheaper than zeroing everything before
