"""Pairs whose texts are encoded apart: each tokenised by itself, and joined as the tokenizer joins a pair.

The second text begins at a fixed position, the offset, so that neither its tokens nor their positions depend on the
first: whatever is asked of it, it is the same input.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from er import config
from er.errors import UserError
from er.tasks import tokens
from er.tasks.tokens import Columns
from er.tasks.windows import Windows, check_tokenizer, shortened, windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Apart:
    """How the pairs of a task come apart: the first part ends with the first special token behind the first text."""

    tokenizer: PreTrainedTokenizerBase
    before: int
    """Special tokens of the first part."""
    behind: int
    """Special tokens of the second part."""
    offset: int
    """The position of the second part's first token."""
    length: int
    """Tokens up to which an input may reach, offset and second part together."""

    @classmethod
    def of(
        cls, task: config.Task, tokenizer: PreTrainedTokenizerBase, length: int, most: int, texts: Iterable[str]
    ) -> Apart:
        """Take a tokenizer's pairs apart; `texts` are all first ones, which may by themselves take `most` tokens."""
        check_tokenizer(task.name, tokenizer)
        before, behind = _specials(tokenizer)
        offset = task.offset or before + max(1, min(most, _longest(tokenizer, texts)))
        if not before < offset < length - behind:
            raise UserError(
                f"task.offset={offset} leaves no room for text: an input has {length} tokens (task.max_length), "
                f"{before} special ones with the first text and {behind} with the second. Choose {before + 1} to "
                f"{length - behind - 1}, or null for the longest first text."
            )
        return cls(tokenizer, before, behind, offset, length)

    @property
    def most(self) -> int:
        """Tokens that a first text may have."""
        return self.offset - self.before

    def firsts(self, texts: list[str]) -> tuple[Columns, int]:
        """Tokenise first texts; return their columns, and how many were shortened."""
        short = shortened(self.tokenizer, texts, self.most)
        columns, _ = tokens.encoded(self.tokenizer, [short, [""] * len(short)], self.offset + self.behind)
        cut = sum(one != other for one, other in zip(short, texts, strict=True))
        return {name: [row[: len(row) - self.behind] for row in rows] for name, rows in columns.items()}, cut

    def seconds(self, texts: list[str]) -> tuple[Columns, int]:
        """Tokenise second texts, and truncate what does not fit; return their columns, and how many were truncated."""
        columns, cut = tokens.encoded(self.tokenizer, [[""] * len(texts), texts], self._room)
        return {name: [row[self.before :] for row in rows] for name, rows in columns.items()}, cut

    def windows(self, texts: list[str], stride: int, most: int | None) -> Windows:
        """Cut second texts into windows."""
        cut = windows(self.tokenizer, [[""] * len(texts), texts], self._room, stride, most, asked=0)
        columns = {name: [row[self.before :] for row in rows] for name, rows in cut.columns.items()}
        return Windows(columns, cut.owners, [spans[self.before :] for spans in cut.spans])

    def joined(self, firsts: Columns, seconds: Columns, pairs: Iterable[tuple[int, int]]) -> Columns:
        """Join these pairs of a first and a second text, each with its `seam` (tokens of the first) and `offset`."""
        chosen = list(pairs)
        columns: Columns = {name: [rows[i] + seconds[name][j] for i, j in chosen] for name, rows in firsts.items()}
        seams = [len(firsts["input_ids"][i]) for i, _ in chosen]
        return columns | {"seam": seams, "offset": [self.offset] * len(chosen)}

    @property
    def _room(self) -> int:
        """Tokens of a second part behind an empty first text."""
        return self.length - self.offset + self.before


def _specials(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return how many special tokens belong to the first part of a pair and how many to the second."""
    sequences = tokenizer("a", "a", padding=False, truncation=False).sequence_ids(0)
    begins = sequences.index(1)
    ends = max(i for i, sequence in enumerate(sequences) if sequence == 0) + 1
    seam = min(ends + 1, begins)
    return sequences[:seam].count(None), sequences[seam:].count(None)


def _longest(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> int:
    always = {"add_special_tokens": False, "padding": False, "truncation": False, "verbose": False}
    return max(map(len, tokenizer(sorted(set(texts)), **always)["input_ids"]))
