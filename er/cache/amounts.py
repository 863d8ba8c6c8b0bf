"""Sizes and ages as one writes them: `50GB`, `30d`."""

from __future__ import annotations

import re

from er.errors import UserError

SIZES = {"": 1, "B": 1} | {
    f"{prefix}{ending}": base**power
    for power, prefix in enumerate("KMGTP", 1)
    for ending, base in {"": 1000, "B": 1000, "iB": 1024}.items()
}
AGES = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)


def size(text: str, option: str) -> int:
    """The bytes that `50GB` (or `50GiB`, or a plain number) means; `option` is who said so."""
    return round(_amount(text, option, SIZES, "50GB"))


def age(text: str, option: str) -> float:
    """The seconds that `30d` means."""
    return _amount(text, option, AGES, "30d")


def _amount(text: str, option: str, units: dict[str, int], example: str) -> float:
    found = _AMOUNT.fullmatch(text.strip())
    factors = {unit.lower(): factor for unit, factor in units.items()}
    if not found or found[2].lower() not in factors:
        known = ", ".join(unit for unit in units if unit)
        raise UserError(f"{option}={text}: give a number and one of {known}, as in {option}={example}.")
    return float(found[1]) * factors[found[2].lower()]
