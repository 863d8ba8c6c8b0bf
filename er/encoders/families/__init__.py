"""The families that can be cut, one small file each, found by being here.

A new one is a file that says what differs from BERT (`er.encoders.family`), which `model_type` its models have, and a
tiny sample of them: the tests of every law then hold it to them.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from transformers import PretrainedConfig

from er.encoders.family import Family
from er.errors import UserError


def _found() -> dict[str, Family]:
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    kinds = [kind for module in modules for kind in vars(module).values() if isinstance(kind, type)]
    families = [kind for kind in dict.fromkeys(kinds) if issubclass(kind, Family) and "types" in vars(kind)]
    return {name: family() for family in families if family is not Family for name in family.types}


FAMILIES: dict[str, Family] = dict(sorted(_found().items()))
"""Each family, by the `model_type` of its models' configurations."""


def family_of(model_type: str) -> Family:
    """Return how models of this type are cut."""
    if model_type not in FAMILIES:
        raise UserError(
            f"Models of type {model_type!r} cannot be cut: nothing is known about where their layers lie. "
            f"Choose a model of one of these types: {', '.join(FAMILIES)}."
        )
    return FAMILIES[model_type]


def first_position(config: PretrainedConfig) -> int | None:
    """Return the position id of an input's first token, `None` where positions are relative.

    A family whose models take no position ids is refused: there, no text can be told that it is the second of two.
    """
    family = family_of(config.model_type)
    if not family.placeable:
        able = ", ".join(name for name, each in FAMILIES.items() if each.placeable)
        raise UserError(
            f"task.encode=separate: models of type {config.model_type!r} take no position ids, so a second text "
            f"cannot be encoded apart at its place. Choose a model of one of these types: {able}."
        )
    return family.first_position(config)


def depth(config: PretrainedConfig) -> int:
    """Return N, the number of encoder layers that a configuration asks for, no weights needed."""
    family_of(config.model_type)
    return int(config.num_hidden_layers)
