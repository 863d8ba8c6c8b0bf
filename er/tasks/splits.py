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

ADJECTIVE = {"train": "training", "dev": "dev", "test": "test"}


def complete(
    name: str, given: dict[str, list[T]], content: Callable[[T], str]
) -> tuple[dict[str, list[T]], dict[str, str]]:
    """Split what is missing off the training data, and say of each split where it is from.

    Where no training data is given, the dev split, or else the test split, is split in its place. Examples
    of equal content stay together, so none is both trained on and tested.
    """
    if blank := [split for split in given if not given[split]]:
        raise UserError(
            f"{name}: all examples given for {' and '.join(blank)} are empty. Fill the file, or remove it: then "
            "a part of the other examples is set aside in its place."
        )
    source = pool(given)
    whole: dict[str, list[T]] = {split: [] for split in SPLITS} | given | {source: [], "train": []}
    missing = [split for split in SPLITS[1:] if split not in given or split == source]
    for example in given[source]:
        share = int(place("split", content(example)) / SHARE)
        whole[missing[share] if share < len(missing) else "train"].append(example)
    if empty := [split for split in SPLITS if not whole[split]]:
        raise UserError(
            f"{name}: splitting {' and '.join(missing)} off {len(given[source])} {ADJECTIVE[source]} examples leaves "
            f"{' and '.join(empty)} empty. Give a file for {' and '.join(missing)}."
        )
    derived = missing if source == "train" else ["train", *missing]
    for split in derived:
        log.info(
            "%s: no %s split is given; %d of %d %s examples set aside for it",
            name,
            split if split != source else f"separate {split}",
            len(whole[split]),
            len(given[source]),
            ADJECTIVE[source],
        )
    return whole, {split: "derived" if split in derived else "given" for split in SPLITS}


def pool(given: dict[str, list[T]]) -> str:
    """Name the split that is trained on, and that missing splits are taken from."""
    return next(split for split in SPLITS if split in given)


def leaks(name: str, splits: dict[str, list[T]], content: Callable[[T], str]) -> int:
    """Count the test examples whose very text is trained on, and say so."""
    seen = {content(example) for example in splits["train"]}
    test = splits["test"]
    count = sum(content(example) in seen for example in test)
    if count:
        log.warning("%s: %d of %d test examples have the very text of a training example", name, count, len(test))
    return count


def limited(examples: list[T], limit: int | float | None, content: Callable[[T], str]) -> list[T]:
    """Keep at most `limit` examples, or such a fraction of them, in their order.

    A smaller limit keeps a part of what a larger one keeps.
    """
    most = round(limit * len(examples)) if isinstance(limit, float) else limit
    if most is None or most >= len(examples):
        return examples
    if most < 1:
        raise UserError(
            f"task.limit={limit} leaves none of {len(examples)} training examples. Use 1 or more of them, a larger "
            "fraction, or null for all."
        )
    order = sorted(range(len(examples)), key=lambda i: place("limit", content(examples[i])))
    return [examples[i] for i in sorted(order[:most])]


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
