"""Long inputs as windows: every token is seen, most of them with what stands on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from er.errors import UserError
from er.tasks import tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Windows(NamedTuple):
    """Tokenised windows, and where each of their tokens comes from."""

    columns: tokens.Columns
    """`input_ids` and `token_type_ids`, if there are any."""
    owners: list[int]
    """Which text each window is of; the windows of a text follow each other."""
    spans: list[np.ndarray]
    """The characters that each token stands for in the text, shape (tokens, 2); (0, 0) outside it."""


def check_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that cannot say which characters a token stands for."""
    if not tokenizer.is_fast:
        raise UserError(
            f"task={name} needs to know where each token stands in the text, which only a fast tokenizer says. "
            "Convert the model's with AutoTokenizer.from_pretrained(..., use_fast=True).save_pretrained(DIR)."
        )


def windows(
    tokenizer: PreTrainedTokenizerBase,
    texts: list[list[str]],
    length: int,
    stride: int,
    most: int | None = None,
    asked: int | None = None,
) -> Windows:
    """Cut the second texts of pairs into windows of `length` tokens that share `stride` of them.

    Half a window is the most that two may share; `most` is how many windows of a text are kept, and `asked` how many
    tokens the first texts have at most, if that is not the quarter that they may have.
    """
    asked = question_room(tokenizer, length) if asked is None else asked
    room = length - int(tokenizer.num_special_tokens_to_add(True)) - asked
    encoding = tokenizer(
        *texts,
        truncation="only_second",
        max_length=length,
        stride=min(stride, room // 2),
        padding=False,  # always said: some tokenizers ship with it switched on
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    owners = encoding.pop("overflow_to_sample_mapping")
    offsets = encoding.pop("offset_mapping")
    kept = [i for i, owner in enumerate(owners) if most is None or i < most or owners[i - most] != owner]
    spans = [_spans(offsets[i], encoding.sequence_ids(i)) for i in kept]
    columns = {name: [column[i] for i in kept] for name, column in encoding.items()}
    return Windows(columns, [owners[i] for i in kept], spans)


def question_room(tokenizer: PreTrainedTokenizerBase, length: int) -> int:
    """Return how many tokens the first text of a pair may have: a quarter of what fits."""
    return (length - int(tokenizer.num_special_tokens_to_add(True))) // 4


def shortened(tokenizer: PreTrainedTokenizerBase, texts: list[str], most: int) -> list[str]:
    """Return the beginnings of texts, each `most` tokens long at most."""
    spans = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    return [
        text if len(each) <= most else _shortened(tokenizer, text[: each[most - 1][1]], most)
        for text, each in zip(texts, spans, strict=True)
    ]


def _shortened(tokenizer: PreTrainedTokenizerBase, text: str, most: int) -> str:
    """Cut a text until it fits: a word that was cut in two may come out as more pieces than before."""
    while len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) > most:
        text = text[:-1]
    return text


def _spans(offsets: list[tuple[int, int]], sequences: list[int | None]) -> np.ndarray:
    inside = np.array([sequence == 1 for sequence in sequences])
    spans: np.ndarray = np.asarray(offsets, dtype=np.int32).reshape(-1, 2) * inside[:, None]
    return spans
