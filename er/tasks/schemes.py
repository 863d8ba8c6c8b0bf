"""Tags of every common scheme, read as one: IOB2, where each entity begins with B."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from er.errors import UserError

TAG = re.compile(r"O|[BIESLU]-\S.*", re.DOTALL)

MIXED = "B-I or a single I"
"""bc5cdr's own scheme: a mention of several tokens is B I I, one of a single token is I."""


def check(tag: str, where: str) -> None:
    """Refuse what is no tag."""
    if not TAG.fullmatch(tag):
        raise UserError(
            f"{where}: {tag[:40]!r} is no tag. Write O, B-NAME or I-NAME (or the E-, S-, L-, U- of BIOES and BILOU)."
        )


def kind_of(tag: str) -> str | None:
    """Return the kind of entity that a tag speaks of, or nothing for O."""
    return None if tag == "O" else tag[2:]


def scheme(sentences: Iterable[Sequence[str]]) -> str:
    """Name the scheme of some tags.

    What tells is how entities begin where no other of their kind goes before: with B in IOB2, with I in
    IOB1, and in bc5cdr's files with B if more tokens follow and with I if none does.
    """
    letters, first, lone_b = set(), set(), False
    for tags in sentences:
        for before, tag, after in zip(["O", *tags], tags, [*tags[1:], "O"], strict=False):
            if tag == "O":
                continue
            letters.add(tag[0])
            if kind_of(before) != kind_of(tag):
                first.add(tag[0])
            if tag[0] == "B" and after != f"I{tag[1:]}":
                lone_b = True
    if letters & set("ESLU"):
        return "BILOU" if letters & set("LU") else "BIOES"
    if first == {"I"}:
        return "IOB1"
    return MIXED if first == {"B", "I"} and not lone_b else "IOB2"


def iob2(tags: Sequence[str], scheme: str) -> list[str]:
    """Rewrite the tags of one sentence.

    An entity begins at B, S and U, and at any other tag that does not go on with the entity before it: one
    of another kind, or one that has ended. In bc5cdr's scheme an I without a B before it ends there, too.
    """
    out, going_on = [], None
    for tag in tags:
        kind = kind_of(tag)
        begins = tag[0] in "BSU" or kind != going_on
        if kind is not None:
            out.append(("B-" if begins else "I-") + kind)
        else:
            out.append("O")
        ends = tag[0] in "ESLU" or (scheme == MIXED and begins and tag[0] == "I")
        going_on = None if ends else kind
    return out
