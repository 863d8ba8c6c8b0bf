"""Memory for batches that is used again, as fresh memory takes longer to come by than a batch takes to copy."""

from __future__ import annotations

import math
import weakref
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

KEPT = 4
"""Free buffers of one size that are kept: a batch in use, two that wait for it, and one that is filled."""


class Buffers:
    """Lends memory for tensors, and has it back when the last tensor or view that shares it is gone.

    Sizes are powers of two, so that a batch finds what another left. What is lent is never lent again meanwhile,
    however long somebody holds on to it; who holds many has many buffers.
    """

    def __init__(self) -> None:
        self._free: defaultdict[int, list[NDArray[np.uint8]]] = defaultdict(list)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor like `torch.empty`."""
        size = math.prod(shape) * dtype.itemsize
        buffer = self._buffer(1 << (size - 1).bit_length())
        lent = buffer[:size]
        weakref.finalize(lent, self._take_back, buffer).atexit = False
        return torch.from_numpy(lent).view(dtype).view(shape)  # which holds `lent`, as every view of it does

    def __reduce__(self) -> tuple[Callable[[], Buffers], tuple[()]]:
        """Another process has memory of its own."""
        return Buffers, ()

    def _buffer(self, size: int) -> NDArray[np.uint8]:
        try:
            return self._free[size].pop()
        except IndexError:
            return torch.empty(size, dtype=torch.uint8).numpy()  # aligned as any tensor is: kernels may care

    def _take_back(self, buffer: NDArray[np.uint8]) -> None:
        free = self._free[buffer.size]
        if len(free) < KEPT:
            free.append(buffer)
