"""What a head reads, and what its loss looks at."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

from er.choices import Head
from er.testing import padded_batch, tiny
from er.training.heads import LOSSES, auto_class, build

SHAPES = {"sequence": (2, 3), "token": (2, 5, 3), "span": (2, 5, 2)}


@pytest.mark.parametrize("reads", SHAPES)
def test_our_head_has_the_shape_that_its_kind_reads(reads: str) -> None:
    output = SimpleNamespace(last_hidden_state=torch.randn(2, 5, 8))

    assert build(Head.linear, reads, 8, SHAPES[reads][-1])(output).shape == SHAPES[reads]


@pytest.mark.parametrize(("reads", "head"), [("sequence", "sequence"), ("token", "token"), ("span", "qa")])
def test_the_stock_head_has_it_too(reads: str, head: str) -> None:
    model = tiny(head=head)
    assert type(model).__name__.removeprefix("Bert") == auto_class(Head.stock, reads).__name__.removeprefix("AutoModel")

    logits = build(Head.stock, reads, 0, 2)(model(**padded_batch(model.config)))

    assert logits.shape == ((3, 2) if reads == "sequence" else (3, 9, 2))


def test_only_labelled_tokens_count() -> None:
    logits, labels = torch.randn(2, 3, 4), torch.tensor([[0, -100, 3], [-100, -100, 1]])

    expected = cross_entropy(logits[[0, 0, 1], [0, 2, 2]], torch.tensor([0, 3, 1]))

    torch.testing.assert_close(LOSSES["token"](logits, labels), expected)


def test_padding_and_empty_batches_cost_nothing() -> None:
    logits, labels = torch.randn(2, 3, 4), torch.tensor([[0, 2, 3], [1, 1, 1]])
    longer = torch.cat([logits, torch.randn(2, 2, 4)], dim=1)

    torch.testing.assert_close(
        LOSSES["token"](longer, torch.nn.functional.pad(labels, (0, 2), value=-100)), LOSSES["token"](logits, labels)
    )
    assert LOSSES["token"](logits, torch.full((2, 3), -100)) == 0


def test_both_ends_of_a_span_count_alike() -> None:
    logits, labels = torch.randn(3, 7, 2), torch.tensor([[0, 0], [2, 4], [6, 6]])

    ends = cross_entropy(logits[..., 0], labels[:, 0]), cross_entropy(logits[..., 1], labels[:, 1])

    torch.testing.assert_close(LOSSES["span"](logits, labels), sum(ends) / 2)
