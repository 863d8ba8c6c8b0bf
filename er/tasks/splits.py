"""Splitting and thinning by a hash of the content: the same examples whatever the order of a file."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import TypeVar

from er.errors import UserError
from er.tasks.task import SPLITS

log = logging.getLogger(__name__)

T = TypeVar("T")

SHARE = 0.1
"""What a missing dev or test split takes of the training data."""


def complete(
    name: str, given: dict[str, list[T]], content: Callable[[T], str]
) -> tuple[dict[str, list[T]], dict[str, str]]:
    """Split what is missing of dev and test off the training data, and say of each split where it is from.

    Examples of equal content stay together, so none is both trained on and tested.
    """
    missing = [split for split in SPLITS if split not in given]
    whole: dict[str, list[T]] = {split: [] for split in SPLITS} | given | {"train": []}
    for example in given["train"]:
        share = int(place("split", content(example)) / SHARE)
        whole[missing[share] if share < len(missing) else "train"].append(example)
    if empty := [split for split in SPLITS if not whole[split]]:
        raise UserError(
            f"{name}: splitting {' and '.join(missing)} off {len(given['train'])} training examples leaves "
            f"{' and '.join(empty)} empty. Give a file for {' and '.join(missing)}."
        )
    for split in missing:
        log.info(
            "%s: no %s split is given; %d of %d training examples set aside for it",
            name,
            split,
            len(whole[split]),
            len(given["train"]),
        )
    return whole, {split: "given" if split in given else "derived" for split in SPLITS}


def limited(examples: list[T], limit: int | None, content: Callable[[T], str]) -> list[T]:
    """Keep at most `limit` examples, in their order.

    A smaller limit keeps a part of what a larger one keeps.
    """
    if limit is None or limit >= len(examples):
        return examples
    if limit < 1:
        raise UserError(f"task.limit={limit} leaves nothing to train on. Use 1 or more, or null for all.")
    order = sorted(range(len(examples)), key=lambda i: place("limit", content(examples[i])))
    return [examples[i] for i in sorted(order[:limit])]


def place(purpose: str, content: str) -> float:
    """Return a number in [0, 1) that depends on nothing but the content and the purpose it is drawn for."""
    digest = hashlib.blake2b(f"{purpose}\0{content}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48  # 48 bits, so that the quotient is exact and below 1


def digest(splits: dict[str, list[T]], content: Callable[[T], str]) -> str:
    """Hash every example of every split, in order, to 32 characters."""
    whole = hashlib.blake2b(digest_size=16)
    for split in SPLITS:
        whole.update(f"{split} {len(splits[split])}\n".encode())
        for example in splits[split]:
            whole.update(f"{content(example)}\1".encode())
    return whole.hexdigest()
