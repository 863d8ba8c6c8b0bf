"""What training may ask of a task, whatever its kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

SPLITS = ("train", "dev", "test")

NEW = "new"
"""The one split of a task whose texts nobody has labelled."""

IGNORED = -100
"""The label that no loss looks at."""


class Task(Protocol):
    """Three splits of labelled text, and the measure of success on them.

    A split holds *examples*, which is what is scored. Tokenised, it holds *features*, which is what a
    model sees: one for each example, or several where a long example is cut into windows.
    """

    name: str
    labels: list[str]
    """The names of the outputs, in order."""
    outputs: int
    """Width of the head's last layer."""
    head: str
    """What the head reads, and so which loss it needs: `sequence`, `token` or `span`."""
    metric: str
    """The main one among the scores."""
    origin: dict[str, str]
    """For each split `given`, or `derived` where it was split off another."""
    sizes: dict[str, int]
    """The number of examples of each split."""
    leaks: int
    """Test examples whose very text is trained on."""
    offset: int | None
    """Tokens kept free before the second text, once texts that are encoded apart are tokenised."""
    truncated: int
    """Texts of which the model does not see all, once they are tokenised."""
    unscored: frozenset[str]
    """Splits in which there is nothing that the main score could measure: it is left out of theirs."""
    digest: str
    """Of every example of every split: what was learned, wherever it was read from."""

    def tokenize(self, tokenizer: PreTrainedTokenizerBase, store: Path | None = None) -> dict[str, Dataset]:
        """Turn every split into features: `input_ids`, `token_type_ids` if there are any, `labels`.

        What is found in the folder `store` is not made again. Nothing is padded: padding belongs to a batch. Where
        two texts are to be encoded apart, `seam` says how many tokens are the first one's, and `offset` at which
        position the second begins.
        """

    def score(self, split: str, logits: Sequence[np.ndarray]) -> dict[str, float]:
        """Measure the logits of a split: one array a feature, in the order of `tokenize`."""

    def predictions(self, split: str, logits: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """Say what the logits of a split mean, one record an example that JSON can hold."""

    def answers(self, split: str, logits: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """Say what the logits of new texts mean, with nothing to compare them with."""

    def details(self, split: str, logits: Sequence[np.ndarray]) -> dict[str, Any]:
        """Break the score of a split down, as JSON can hold it: figures by class, a confusion matrix."""
