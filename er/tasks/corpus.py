"""What tasks of every kind have in common: three splits of examples, made whole, thinned and counted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from er import config
from er.errors import UserError
from er.tasks import splits

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)


class Example(Protocol):
    """What a split holds, whatever the kind."""

    @property
    def where(self) -> str:
        """The file and line that an error should name."""

    @property
    def content(self) -> str:
        """The text: two examples of equal content in train and test are a leak."""

    @property
    def group(self) -> str:
        """What must not be torn apart where one split is taken from another."""

    @property
    def identity(self) -> str:
        """The text and its answer."""


E = TypeVar("E", bound=Example)


class Corpus(Generic[E]):
    """The examples of a task.

    What is missing of the splits is taken from the training data before `task.limit` thins it: a quick look
    is tested on what the real run is tested on.
    """

    def __init__(self, task: config.Task, given: dict[str, list[E]]) -> None:
        self.name = task.name
        self.examples, self.origin = splits.complete(task.name, given, lambda example: example.group)
        self.examples["train"] = splits.limited(self.examples["train"], task.limit, lambda example: example.identity)
        self.sizes = {split: len(examples) for split, examples in self.examples.items()}
        self.digest = splits.digest(self.examples, lambda example: example.identity)
        self.leaks = splits.leaks(task.name, self.examples, lambda example: example.content)
        log.info("%s: %s examples", self.name, ", ".join(f"{size:,} {split}" for split, size in self.sizes.items()))

    def check_unseen(self, split: str, what: str, found: Sequence[tuple[str, str]], policy: config.UnseenLabel) -> None:
        """Refuse, or count, what only dev or test has: pairs of a place and a label."""
        if not found:
            return
        names = ", ".join(sorted({repr(label) for _, label in found})[:10])
        where, label = found[0]
        if policy is config.UnseenLabel.error:
            raise UserError(
                f"{where}: {what} {label!r} never occurs in the training split "
                f"({len(found)} such examples in {split}: {names}). Correct it, or count them as wrong with "
                "task.unseen_label=wrong."
            )
        log.warning(
            "%s: %d of %d %s examples have a %s that training never shows (%s): counted as wrong",
            self.name,
            len(found),
            self.sizes[split],
            split,
            what,
            names,
        )

    def check_logits(self, split: str, logits: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]]) -> None:
        """Refuse logits of another split, and those of a training that diverged."""
        import numpy as np

        found = [each.shape for each in logits]
        if found != list(shapes):
            wrong: Any = [pair for pair in zip(found, shapes, strict=False) if pair[0] != pair[1]][:1]
            raise ValueError(f"{self.name}: {len(found)} logits of {split}, not {len(shapes)}; first misfit: {wrong}.")
        if not all(np.isfinite(each).all() for each in logits):
            raise UserError(f"{self.name}: logits of {split} are not finite: it diverged. Lower optim.lr.")
