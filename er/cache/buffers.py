"""Memory for batches that is used again, as fresh memory takes longer to come by than a batch takes to copy."""

from __future__ import annotations

import math
import mmap
import weakref
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HUGE = 2 << 20
"""A huge page: filling a batch is half again as fast where the processor has few pages to look up."""

KEPT = 4
"""Free buffers that are kept: a batch in use, two that wait for it, and one that is filled."""

WASTE = 16
"""How much larger than a batch its memory may be, where that is more than a huge page."""


class Buffers:
    """Lends memory for tensors, and has it back when the last tensor or view that shares it is gone.

    The last that came back goes out first, as the processor still has it at hand. What is lent is never lent again
    meanwhile, however long somebody holds on to it; who holds many has many buffers.
    """

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor like `torch.empty`."""
        size = math.prod(shape) * dtype.itemsize
        buffer = self._buffer(size)
        lent = buffer[:size]
        weakref.finalize(lent, self._take_back, buffer).atexit = False
        return torch.from_numpy(lent).view(dtype).view(shape)  # which holds `lent`, as every view of it does

    def __reduce__(self) -> tuple[Callable[[], Buffers], tuple[()]]:
        """Another process has memory of its own."""
        return Buffers, ()

    def _buffer(self, size: int) -> NDArray[np.uint8]:
        for place in reversed(range(len(self._free))):
            if size <= self._free[place].size <= WASTE * max(size, HUGE):
                return self._free.pop(place)
        return _memory(1 << (size - 1).bit_length())  # a power of two, so that other batches fit in, too

    def _take_back(self, buffer: NDArray[np.uint8]) -> None:
        self._free.append(buffer)
        del self._free[:-KEPT]


def _memory(size: int) -> NDArray[np.uint8]:
    """New memory, in huge pages where it is worth one and the system has them."""
    if size < HUGE:
        return torch.empty(size, dtype=torch.uint8).numpy()  # aligned as any tensor is: kernels may care
    map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared memory has other pages
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            map.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(map, np.uint8)
