"""Fill a cache: encode what is missing, window by window, while the window before is written."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from logging import getLogger
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from er.cache import codec
from er.cache.claims import Claims, wait_for_others
from er.cache.codec import Stored
from er.cache.key import Ints, Keys
from er.cache.publish import locked, sweep
from er.cache.store import ActivationCache
from er.errors import UserError
from er.progress import progress_bar

log = getLogger(__name__)

Encode: TypeAlias = Callable[[NDArray[np.intp]], Tensor]
"""Positions of inputs -> their activations `(batch, longest, hidden)`, padded on the right, on any device."""


@dataclass(frozen=True)
class Built:
    """What a build found and did, in entries; bytes and seconds are those of the misses, without any waiting."""

    hits: int
    misses: int
    bytes: int
    seconds: float


def build(
    cache: ActivationCache,
    keys: Keys,
    lengths: Ints,
    encode: Encode,
    *,
    segment_bytes: int = 128 << 20,
    batch_tokens: int = 8192,
    progress: bool = True,
) -> Built:
    """Make sure that every key has an entry; where all have one, nothing is locked and nothing written.

    `encode` is called with batches of similar length that hold at most `batch_tokens` padded tokens. A segment is
    published for every `segment_bytes`: what a kill can lose, and what builders at work at once share out by.
    """
    distinct, lengths = len(np.unique(keys)), np.asarray(lengths, np.int64)
    if len(lengths) != len(keys) or (lengths < 1).any():
        raise ValueError(f"{len(keys)} keys need as many lengths, all above zero, got {lengths}.")
    cache.refresh()
    todo = cache.missing(keys)
    if not len(todo):
        return Built(distinct, 0, 0, 0.0)
    _check_room(cache, lengths[todo])
    with locked(cache.directory):
        sweep(cache.directory)
    log.info("%d entries cached, %d to build in %s.", distinct - len(todo), len(todo), cache.directory)
    window = max(1, segment_bytes // codec.token_bytes(cache.space.storage_dtype, cache.hidden))
    mine, seconds = [todo[:0]], 0.0
    wanted = todo
    with _bar(cache, lengths[wanted], progress) as bar:
        while len(todo):
            started = time.perf_counter()
            shares = _shares(cache, keys, lengths, windows(todo, lengths, window, batch_tokens))
            mine += _fill(cache, keys, lengths, shares, encode, batch_tokens, bar)
            seconds += time.perf_counter() - started
            todo = todo[cache.absent(keys[todo])]
            if len(todo):  # others are at it
                wait_for_others(cache, keys[todo])
                todo = todo[cache.absent(keys[todo])]
            bar.update(cache.size(lengths[wanted]) - cache.size(lengths[todo]) - bar.n)  # what others built
    built = np.concatenate(mine)
    return Built(distinct - len(built), len(built), cache.size(lengths[built]), seconds)


def _shares(
    cache: ActivationCache, keys: Keys, lengths: Ints, parts: Iterator[NDArray[np.intp]]
) -> Iterator[tuple[NDArray[np.intp], Claims]]:
    """Take on window after window of what is free, until nothing is."""
    none = np.empty(0, np.intp)
    share, claims = none, Claims(cache)
    try:
        for window in parts:
            wanted = lengths[window].sum() / 2  # where others have taken the rest, one more window fills up the share
            window = window[cache.absent(keys[window])]
            if len(window):
                share = np.append(share, window[claims.take(keys[window])])
            if lengths[share].sum() >= wanted:
                yield share, claims
                share, claims = none, Claims(cache)
        if len(share):
            yield share, claims
    except BaseException:
        claims.release()
        raise


def _fill(
    cache: ActivationCache,
    keys: Keys,
    lengths: Ints,
    shares: Iterator[tuple[NDArray[np.intp], Claims]],
    encode: Encode,
    batch_tokens: int,
    bar: tqdm[Any],
) -> list[NDArray[np.intp]]:
    """Encode and publish, and say what."""

    def write(share: NDArray[np.intp], stored: Stored, seconds: float, claims: Claims) -> None:
        with claims:
            cache.publish(keys[share], lengths[share], stored, seconds)

    filled, published = [], None
    with ThreadPoolExecutor(1, "cache-writer") as writer:
        for share, claims in shares:
            with ExitStack() as failing:
                failing.enter_context(claims)
                started = time.perf_counter()
                stored = _encoded(cache, lengths, share, encode, batch_tokens, bar)
                seconds = time.perf_counter() - started
                if published:
                    published.result()  # one window is written at a time, and an error of the writer surfaces
                published = writer.submit(write, share, stored, seconds, claims)
                failing.pop_all()
            filled.append(share)
        if published:
            published.result()
    return filled


def _encoded(
    cache: ActivationCache,
    lengths: Ints,
    window: NDArray[np.intp],
    encode: Encode,
    batch_tokens: int,
    bar: tqdm[Any],
) -> Stored:
    """The activations of a window, packed in the window's order whatever order they are computed in."""
    tokens = lengths[window]
    starts = np.cumsum(tokens) - tokens
    packed = codec.empty(cache.space.storage_dtype, int(tokens.sum()), cache.hidden)
    for batch in longest_first(tokens, batch_tokens):
        part = codec.encode(_cropped(encode(window[batch]), tokens[batch]), cache.space.storage_dtype)
        rows = _rows(starts[batch], tokens[batch])
        packed.rows.index_copy_(0, rows, part.rows.cpu())
        if packed.scale is not None and part.scale is not None:
            packed.scale.index_copy_(0, rows, part.scale.cpu())
        bar.update(cache.size(tokens[batch]))
    return packed


def windows(todo: NDArray[np.intp], lengths: Ints, tokens: int, least: int) -> Iterator[NDArray[np.intp]]:
    """Cut into runs of about so many tokens, in the order of the data set.

    The last ones are ever smaller, though not below `least`: when all is encoded, little should be left to write and
    sync, yet every file costs a sync.
    """
    ends, begin, done, least = np.cumsum(lengths[todo]), 0, 0, max(least, tokens // 16)
    while begin < len(todo):
        wanted = min(tokens, max((int(ends[-1]) - done) // 2, least))
        end = max(begin + 1, int(np.searchsorted(ends, done + wanted, side="right")))
        yield todo[begin:end]
        begin, done = end, int(ends[end - 1])


def longest_first(lengths: Ints, batch_tokens: int) -> Iterator[NDArray[np.intp]]:
    """Longest first, so that a batch that does not fit the device is met at once and not at the end."""
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        size = max(1, batch_tokens // int(lengths[order[0]]))
        yield order[:size]
        order = order[size:]


def _cropped(padded: Tensor, lengths: Ints) -> Tensor:
    """The real tokens of a padded batch, packed."""
    real = torch.as_tensor(lengths, device=padded.device)
    return padded[torch.arange(padded.shape[1], device=padded.device) < real[:, None]]


def _rows(starts: Ints, lengths: Ints) -> Tensor:
    """The row numbers of consecutive runs: `starts[0], starts[0] + 1, ...`, then those of the next."""
    before = np.cumsum(lengths) - lengths
    return torch.from_numpy(np.repeat(starts - before, lengths) + np.arange(lengths.sum()))


def _bar(cache: ActivationCache, lengths: Ints, progress: bool) -> tqdm[Any]:
    what = f"Caching {len(lengths):,} entries"
    return progress_bar(total=cache.size(lengths), unit="B", unit_scale=True, desc=what, disable=not progress)


def _check_room(cache: ActivationCache, lengths: Ints) -> None:
    existing = next(path for path in (cache.directory, *cache.directory.parents) if path.exists())
    need, free = cache.size(lengths), shutil.disk_usage(existing).free
    if need > free:
        raise UserError(
            f"Caching {len(lengths):,} entries takes {need / 1e9:,.2f} GB, but {existing} has "
            f"{free / 1e9:,.2f} GB free. Make room, point paths.cache at a larger disk, "
            "or choose a smaller cache.dtype or task.limit."
        )
