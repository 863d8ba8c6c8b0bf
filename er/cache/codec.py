"""How activations become bytes of a storage dtype, and activations again."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from er.errors import UserError

STORAGE = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
}
"""Storage dtype to the dtype of the stored rows; int8 rows have a float32 scale per token beside them."""

Bytes: TypeAlias = NDArray[np.uint8]

_INT8_MAX = 127


class Stored(NamedTuple):
    """Packed activations as they lie on disk: rows `(tokens, hidden)` and, for int8, a scale `(tokens,)`."""

    rows: Tensor
    scale: Tensor | None


def empty(storage: str, tokens: int, hidden: int) -> Stored:
    """Room for so many tokens, to be filled piece by piece."""
    scale = torch.empty(tokens) if storage == "int8" else None
    return Stored(torch.empty((tokens, hidden), dtype=STORAGE[storage]), scale)


def token_bytes(storage: str, hidden: int) -> int:
    """What one token takes on disk."""
    return hidden * STORAGE[storage].itemsize + (4 if storage == "int8" else 0)


def encode(x: Tensor, storage: str) -> Stored:
    """Activations `(tokens, hidden)` as they are stored, or a `UserError` where they would not survive it."""
    x = x.detach().contiguous()
    low, high = torch.aminmax(x)  # one pass, where isfinite takes several; NaN fails both comparisons
    limit = torch.finfo(torch.float32 if storage == "int8" else STORAGE[storage]).max
    if not (low >= -limit and high <= limit):
        raise UserError(_refusal(x, storage, limit))
    return _quantised(x) if storage == "int8" else Stored(x.to(STORAGE[storage]), None)


def decode(stored: Stored, dtype: torch.dtype) -> Tensor:
    """Stored activations as numbers to compute with."""
    x = torch.empty(stored.rows.shape, dtype=dtype)
    decode_into(x, stored)
    return x


def decode_into(x: Tensor, stored: Stored, start: int = 0) -> None:
    """Fill `x` with as many of the stored tokens as it has room for, from `start` on."""
    x.copy_(stored.rows[start : start + len(x)])
    if stored.scale is not None:
        x.mul_(stored.scale[start : start + len(x), None])


def memory(x: Tensor) -> Bytes:
    """The bytes of a tensor, in one dimension and without a copy; through torch, as numpy has no bfloat16."""
    return x.view(-1).view(torch.uint8).numpy()


def memories(stored: Stored) -> list[Bytes]:
    """The bytes of rows and, where there are any, scales."""
    return [memory(x) for x in stored if x is not None]


def _quantised(x: Tensor) -> Stored:
    """Eight bits a value, scaled so that each token's largest value is 127."""
    x = x.float()
    scale = x.abs().amax(dim=1) / _INT8_MAX
    steps = torch.where(scale > 0, scale, 1.0)  # a token of zeros
    rows = (x / steps[:, None]).round_().clamp_(-_INT8_MAX, _INT8_MAX)
    return Stored(rows.to(torch.int8), scale)


def _refusal(x: Tensor, storage: str, limit: float) -> str:
    if not torch.isfinite(x).all():
        return (
            "The lower layers give NaN or infinite activations, which no cache can be made of. "
            "Compute them in a wider dtype (float32 or bfloat16), or check the model's weights."
        )
    return (
        f"An activation of {x.abs().max().item():.6g} does not fit {storage}, which ends at {limit:.6g}. "
        "Use cache.dtype=bfloat16 or cache.dtype=float32."
    )
