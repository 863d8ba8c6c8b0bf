"""Weights & Biases, as runs and reports use it: begun with words instead of a traceback, and always ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from er.errors import UserError

Started = TypeVar("Started")


def started(start: Callable[[], Started]) -> Started:
    """Begin a W&B run; without a key or an account that is the user's to mend."""
    import wandb

    try:
        return start()
    except wandb.errors.Error as error:
        raise UserError(f"logger=wandb: {error} Set WANDB_API_KEY, or WANDB_MODE=offline.") from error


@contextmanager
def ended(run: Any = None) -> Iterator[None]:
    """End a W&B run, or the one that the block began, as failed if that failed; left open it would swallow the next."""
    import wandb

    try:
        yield
    except BaseException:
        (run or wandb).finish(exit_code=1)
        raise
    (run or wandb).finish()


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to one with slashes in its keys."""
    out: dict[str, Any] = {}
    for name, value in tree.items():
        out |= flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return out
