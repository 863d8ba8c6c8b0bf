"""What the methods of a report do, in the words of their own files."""

from __future__ import annotations

import re
from collections.abc import Iterable

from er.config import CONF


def explained(methods: Iterable[str]) -> dict[str, str]:
    """Return the first sentence of each method's YAML; a method of another `er` may have none here."""
    found = {}
    for name in dict.fromkeys(methods):
        path = CONF / "method" / f"{name.split(',')[0]}.yaml"  # "reduced, separate" is reduced
        if path.is_file():
            comment = re.match(r"(?:#.*\n)*", path.read_text(encoding="utf-8"))
            found[name] = re.sub(r"\s*(?:^|\n)#\s*", " ", comment[0] if comment else "").strip().partition(". ")[0]
    return {name: said.rstrip(".") + "." for name, said in found.items() if said}
