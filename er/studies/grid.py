"""The points of a sweep, as Hydra would launch them, and the configuration of each, most of it composed once."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from er.config import CONF


def composing() -> AbstractContextManager[Any]:
    """Within a command compose by its Hydra; outside of any, by one that is set up for the while."""
    inside = GlobalHydra.instance().is_initialized()
    return nullcontext() if inside else initialize_config_dir(str(CONF), version_base="1.3")


def points(verb: str, overrides: list[str]) -> list[list[str]]:
    """Return the overrides of every point that `er VERB OVERRIDES -m` would launch, in that order.

    An experiment's own sweep is part of them; without any, there is one point.
    """
    with composing():
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        said = parser.parse_overrides(overrides)
        fixed = [str(each.input_line) for each in said if not each.is_sweep_override()]
        params = compose(verb, fixed, return_hydra_config=True).hydra.sweeper.params or {}
        given = parser.parse_overrides([f"{name}={values}" for name, values in params.items()])
        (found,) = BasicSweeper.split_arguments(
            [*given, *(each for each in said if not each.is_hydra_override())], None
        )
    return found


def composed(verb: str, point: list[str]) -> DictConfig:
    """Compose one point, to what Hydra would.

    Choosing options is what takes Hydra its time, so each choice is composed once; what sets single values is set on
    a copy.
    """
    with composing():
        said = OverridesParser.create().parse_overrides(point)
        values = [each for each in said if _sets_a_value(each)]
        choices = tuple(str(each.input_line) for each in said if each not in values)
        cfg = deepcopy(_chosen(verb, choices))
        try:
            for each in values:
                OmegaConf.update(cfg, each.key_or_group, each.value(), merge=True)
        except OmegaConfBaseException:
            return compose(verb, point)  # which says what is wrong as Hydra says it
    return cfg


def _sets_a_value(override: Override) -> bool:
    plain = override.type is OverrideType.CHANGE and override.package is None
    return plain and not _is_group(override.key_or_group)


@functools.cache
def _is_group(name: str) -> bool:
    return bool(GlobalHydra.instance().config_loader().get_group_options(name))  # slow: Hydra looks at all its sources


@functools.lru_cache(maxsize=1024)
def _chosen(verb: str, choices: tuple[str, ...]) -> DictConfig:
    return compose(verb, list(choices))
