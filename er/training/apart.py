"""Two texts through the lower layers, each on its own, and joined at the cut."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from er.cache import Locations
from er.cache.index import once
from er.encoders import Lower
from er.training.data import Split, Tokens


def lowered(lower: Lower, batch: dict[str, Any]) -> Tensor:
    """Return the activations of a batch that has none yet, zero where those of texts encoded apart are padded."""
    if "parts" not in batch:
        return lower(**batch["inputs"])  # type: ignore[no-any-return]
    device = batch["inputs"]["input_ids"].device
    rows: list[list[Tensor]] = []
    for part in batch["parts"]:
        inputs = {name: column.to(device) for name, column in part.items()}
        lengths = part["attention_mask"].sum(dim=1).tolist()
        rows.append([row[:length] for row, length in zip(lower(**inputs), lengths, strict=True)])
    return pad_sequence([torch.cat(row) for row in zip(*rows, strict=True)], batch_first=True)


def inputs(splits: dict[str, Split]) -> Tokens:
    """Return all that the lower layers run over: the inputs of every split, or the texts that they are joined of."""
    return Tokens.joined([part for split in splits.values() for part in split.tokens.parts()])


def saving(where: Locations) -> str:
    """Say what encoding apart spares, given where the two texts of each input lie."""
    first, second = (once(column) for column in where.T)
    apart = int(first["length"].sum() + second["length"].sum())
    return (
        f"separate encoding: {len(first):,} + {len(second):,} entries ({apart:,} tokens) "
        f"instead of {len(where):,} windows ({int(where['length'].sum()):,} tokens)"
    )
