"""From a run's configuration back to the command that composes it."""

from __future__ import annotations

import functools
import re
import shlex
from contextlib import nullcontext
from enum import Enum
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from er.choices import Precision
from er.config import CONF

GROUPS = {"model": "hf", "task": "classification", "method": "reduced", "optim": "default", "trainer": "default"}
"""The groups that decide about a run, and the option to start from where a name is no option of its group."""

PARTS = (*GROUPS, "cache", "paths")
"""Of the configuration, what can make a difference to where a run goes and what comes out."""

PLAIN = re.compile(r"(?!(null|true|false|inf|nan)$)(\.?/)?[a-z_][\w./@+-]*(:[\w./@+-]+)*", re.IGNORECASE | re.ASCII)
"""Strings that Hydra's grammar takes without quotes, and as strings."""


def command(config: dict[str, Any]) -> str:
    """Return the `er train` that composes `config`, as `Result.config` holds it: the shortest that is exact."""
    chosen = {group: _option(group, config) for group in GROUPS}
    first = [f"{group}={chosen[group]}" for group in ("model", "task", "method")] + [f"cut={_text(config['cut'])}"]
    more = [f"{group}={chosen[group]}" for group in ("optim", "trainer") if chosen[group] != "default"]
    base = _composed(*first, *more)
    rest = [said for part in PARTS if part in config for said in _differences(config[part], base.get(part), part)]
    return shlex.join(["er", "train", *first, f"seed={config['seed']}", *more, *rest])


def _option(group: str, config: dict[str, Any]) -> str:
    """Return the option of a group that a run was composed from, or one that can become it."""
    known = config[group]
    wanted = [known["name"], known["kind"]] if group == "task" else [known["name"]]
    return next((name for name in wanted if (CONF / group / f"{name}.yaml").is_file()), GROUPS[group])


@functools.lru_cache(maxsize=64)
def _composed(*overrides: str) -> dict[str, Any]:
    """Compose as `er train` would, within a command or outside of any."""
    inside = GlobalHydra.instance().is_initialized()
    with nullcontext() if inside else initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=list(overrides))
    tree = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(tree, dict)
    return {str(name): value for name, value in tree.items()}


def _differences(ours: Any, base: Any, path: str) -> list[str]:
    """Return an override for each leaf that differs."""
    base = base.value if isinstance(base, Enum) else base
    if isinstance(ours, dict) and isinstance(base, dict) and base:
        known = [name for name in ours if name in base]
        return [said for name in known for said in _differences(ours[name], base[name], f"{path}.{name}")]
    if ours == base:
        return []
    return [f"{path}={Precision(ours).name if path == 'trainer.precision' else _text(ours)}"]


def _text(value: Any) -> str:
    """Write a value in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_text(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_text(each) for each in value) + "]"
    if isinstance(value, int | float) or PLAIN.fullmatch(value):
        return str(value)
    return f"'{QUOTED.sub(_escaped, str(value))}'"


QUOTED = re.compile(r"(\\*)('|$)")
"""Where Hydra's grammar takes backslashes for escapes: before a quote, and at the end."""


def _escaped(match: re.Match[str]) -> str:
    return match[1] * 2 + ("\\'" if match[2] else "")
