"""From texts to token ids, through `datasets`, without padding."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from er.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

Columns = dict[str, list[Any]]


def features(columns: Columns, encode: Callable[[Columns], Columns]) -> Dataset:
    """Apply `encode` to batches of the columns; what it returns replaces them."""
    examples = dataset(columns)
    with quiet():
        return examples.map(
            encode,
            batched=True,
            remove_columns=examples.column_names,
            keep_in_memory=True,
            load_from_cache_file=False,
            new_fingerprint=uuid.uuid4().hex,  # the default hashes the live tokenizer, which changes with use
        )


def dataset(columns: Mapping[str, Any]) -> Dataset:
    """Return columns as they are, in memory."""
    from datasets import Dataset

    return Dataset.from_dict(columns)


def lists(values: np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    """Return a column of lists that stand one behind the other in `values`."""
    import pyarrow as pa

    ends = np.concatenate([[0], np.cumsum(lengths)])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(values))


def flat(features: Dataset, name: str) -> np.ndarray:
    """Return what the lists of a column hold, one list behind the other."""
    values: np.ndarray = features.data.column(name).combine_chunks().flatten().to_numpy()
    return values


def lengths(features: Dataset, name: str) -> np.ndarray:
    """Return how much each list of a column holds."""
    ends: np.ndarray = np.diff(features.data.column(name).combine_chunks().offsets.to_numpy())
    return ends


def ragged(features: Dataset, name: str) -> list[np.ndarray]:
    """Return a column of lists, one array a row: straight from the table, where Python objects would take seconds."""
    return np.split(flat(features, name), np.cumsum(lengths(features, name))[:-1])


def encoded(tokenizer: PreTrainedTokenizerBase, texts: list[list[str]], length: int) -> tuple[Columns, int]:
    """Tokenise one or two columns of texts; return `input_ids` and the like, and how many were truncated.

    Truncation and padding are always passed: some tokenizers ship with both switched on.
    """
    always = {"padding": False, "return_attention_mask": False, "verbose": False}
    columns = dict(tokenizer(*texts, truncation=False, **always))
    long = [i for i, ids in enumerate(columns["input_ids"]) if len(ids) > length]
    if long:
        cut = [[column[i] for i in long] for column in texts]
        shorter = tokenizer(*cut, truncation="longest_first", max_length=length, **always)
        for name, values in columns.items():
            for i, value in zip(long, shorter[name], strict=True):
                values[i] = value
    return columns, len(long)


def length_limit(tokenizer: PreTrainedTokenizerBase, max_length: int, pair: bool) -> int:
    """Return the number of tokens that an input may have: what is asked for, if the model can take it."""
    special = tokenizer.num_special_tokens_to_add(pair)
    limit = min(max_length, int(tokenizer.model_max_length))
    if limit <= special + pair:
        raise UserError(
            f"task.max_length={max_length} leaves no room for text beside the {special} special tokens of "
            "an input. Raise it."
        )
    if limit < max_length:
        log.info("inputs are limited to the model's %d tokens (task.max_length=%d)", limit, max_length)
    return limit


@contextmanager
def quiet() -> Iterator[None]:
    """Switch the progress bars of `datasets` off, and back on if they were."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    if shown:
        disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()
