"""What a run got through in a second."""

from __future__ import annotations

from er.training.data import Split


def tokens_per_second(splits: dict[str, Split], epochs: int, seconds: dict[str, float]) -> dict[str, float]:
    """Return how many tokens were trained on and evaluated in a second; padding is no token, reading takes time."""
    tokens = {name: int(split.tokens.lengths.sum()) for name, split in splits.items()}
    trained, evaluated = epochs * tokens["train"], epochs * tokens["dev"] + tokens["test"]
    return {
        "train": trained / (seconds["train"] + seconds["read"]),
        "evaluate": evaluated / seconds["evaluate"],
    }
