from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, Entities, auto_detect

from er.errors import UserError
from er.tasks import schemes

Spans = list[tuple[str, int]]
"""A kind and a length for each stretch of a sentence; the kind `O` is none."""

stretches = st.lists(st.tuples(st.sampled_from(["O", "x", "y-z"]), st.integers(1, 4)), max_size=6)


def in_iob2(spans: Spans) -> list[str]:
    return [
        tag
        for kind, length in spans
        for tag in (["O"] * length if kind == "O" else [f"B-{kind}", *[f"I-{kind}"] * (length - 1)])
    ]


def in_iob1(spans: Spans) -> list[str]:
    out: list[str] = []
    before = "O"
    for kind, length in spans:
        first = f"B-{kind}" if kind == before else f"I-{kind}"
        out += ["O"] * length if kind == "O" else [first, *[f"I-{kind}"] * (length - 1)]
        before = kind
    return out


def with_ends(spans: Spans, end: str, alone: str) -> list[str]:
    out: list[str] = []
    for kind, length in spans:
        inner = [f"B-{kind}", *[f"I-{kind}"] * (length - 2), f"{end}-{kind}"]
        out += ["O"] * length if kind == "O" else inner if length > 1 else [f"{alone}-{kind}"]
    return out


WRITERS = {
    "IOB2": in_iob2,
    "IOB1": in_iob1,
    "BIOES": lambda spans: with_ends(spans, "E", "S"),
    "BILOU": lambda spans: with_ends(spans, "L", "U"),
}


@pytest.mark.parametrize("name", WRITERS)
@given(spans=stretches)
def test_every_scheme_says_the_same_in_iob2(name: str, spans: Spans) -> None:
    assert schemes.iob2(WRITERS[name](spans), name) == in_iob2(spans)


@pytest.mark.parametrize(("name", "theirs"), {"IOB1": IOB1, "IOB2": IOB2, "BIOES": IOBES, "BILOU": BILOU}.items())
@given(spans=stretches)
def test_seqeval_reads_the_same_entities(name: str, theirs: type, spans: Spans) -> None:
    expected = [entity.to_tuple()[1:] for entity in Entities([WRITERS[name](spans)], theirs).entities[0]]

    found = get_entities(schemes.iob2(WRITERS[name](spans), name))

    assert [(kind, start, end + 1) for kind, start, end in found] == expected


@pytest.mark.parametrize("name", WRITERS)
def test_a_scheme_is_told_by_its_tags(name: str) -> None:
    spans = [("x", 1), ("O", 1), ("x", 3), ("x", 2), ("y", 1)]

    assert schemes.scheme([WRITERS[name](spans)]) == name
    assert auto_detect([in_iob2(spans)]) is not None


def test_the_mixed_scheme_of_bc5cdr() -> None:
    tags = ["I-x", "O", "B-x", "I-x", "I-x", "O", "I-x", "I-x", "O", "I-x", "B-x", "I-x"]

    assert schemes.scheme([tags]) == schemes.MIXED
    assert schemes.iob2(tags, schemes.MIXED) == [
        "B-x", "O", "B-x", "I-x", "I-x", "O", "B-x", "B-x", "O", "B-x", "B-x", "I-x",
    ]  # fmt: skip


def test_a_stray_i_begins_an_entity() -> None:
    tags = ["O", "I-x", "I-x", "I-y", "O", "B-x"]

    assert schemes.scheme([tags]) == "IOB2"
    assert schemes.iob2(tags, "IOB2") == ["O", "B-x", "I-x", "B-y", "O", "B-x"]


@given(st.lists(st.from_regex(r"O|[BIESLU]-[xy]", fullmatch=True)))
def test_what_is_read_once_is_read_the_same_again(tags: list[str]) -> None:
    once = schemes.iob2(tags, schemes.scheme([tags]))

    assert schemes.iob2(once, "IOB2") == once
    assert [tag[1:] for tag in once] == [tag[1:] for tag in tags]


@pytest.mark.parametrize("tag", ["", "o", "B", "B-", "X-x", "b-x", "O-x", "I_x", "Disease", "1", " O"])
def test_what_is_no_tag_is_refused(tag: str) -> None:
    with pytest.raises(UserError, match=r"here: .*is no tag"):
        schemes.check(tag, "here")
