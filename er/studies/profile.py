"""What batches take on one machine, kept on disk: what was timed once need not be timed for the next plan.

`paths.cache/profiles/NAME.json` is called after the hardware. It may be copied to another machine, where
`plan.profile=` names it or its file: a plan for a cluster can then be made on a laptop.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from er import results
from er.cache.publish import locked
from er.config import Config
from er.errors import UserError
from er.identity import plain_tree
from er.studies.planning import Cost, Shapes

FOLDER = "profiles"
VERSION = 1

BEYOND = 1.25
"""Batches that are so much larger than the largest that was timed need a timing of their own."""

Costs = Mapping[str, Cost]
"""By what is done: `training` and `inference`, or `build`."""


@dataclass
class Profile:
    """The timings of one machine; only its own are ever added to."""

    path: Path
    hardware: dict[str, Any]
    own: bool
    """Whether it is this machine's, so that what is missing can be timed."""
    again: bool = False
    """Time what is known as well, once."""
    entries: dict[str, Any] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    new: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """What `plan.profile` calls it."""
        return self.path.stem

    def known(self, about: dict[str, Any], shapes: Shapes) -> Costs | None:
        """Return what was timed of this, if it was, on batches like these."""
        said = plain_tree(about)
        for name, entry in self.entries.items():
            if entry["about"] == said and _like(entry["tokens"], shapes) and self._valid(name, entry):
                self.used.add(name)
                return {what: Cost(*cost) for what, cost in entry["costs"].items()}
        return None

    def _valid(self, name: str, entry: Mapping[str, Any]) -> bool:
        """Whether a timing still holds: our own are taken anew with another torch, or when asked to."""
        return not self.own or name in self.new or (entry["torch"] == torch.__version__ and not self.again)

    def keep(self, about: dict[str, Any], shapes: Shapes, costs: Costs) -> None:
        """Note what was timed, on batches of these shapes, for now and for later plans."""
        entry = {
            "about": plain_tree(about),
            "tokens": [int(each) for each in np.quantile(shapes.prod(axis=1), (0, 1))],
            "costs": {what: list(cost) for what, cost in costs.items()},
            "torch": torch.__version__,
            "timed": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        name = hashlib.blake2b(json.dumps([entry["about"], entry["tokens"]]).encode(), digest_size=6).hexdigest()
        self.new.add(name)
        with locked(self.path.parent):  # another plan may have kept something meanwhile
            self.entries = (_read(self.path)["entries"] if self.path.exists() else {}) | {name: entry}
            said = {"version": VERSION, "hardware": self.hardware, "entries": self.entries}
            results.write_text(self.path, json.dumps(said, indent=1))

    def __str__(self) -> str:
        device, threads = self.hardware["device"], self.hardware["threads"]
        counts = f"{len(self.used - self.new)} timings kept from earlier, {len(self.new)} taken now"
        return f"{device}, {threads} threads (plan.profile={self.name}): {counts}"


def opened(config: Config, device: torch.device) -> Profile:
    """Open the profile that `plan.profile` asks for, by default that of this machine."""
    folder, here = Path(config.paths.cache).expanduser() / FOLDER, hardware(device)
    asked = config.plan.profile
    if asked is None:
        path = folder / f"{_slug('{device} {threads} threads'.format(**here))}.json"
        entries = _read(path)["entries"] if path.exists() else {}
        return Profile(path, here, True, config.plan.again, entries)
    path = Path(asked).expanduser() if asked.endswith(".json") else folder / f"{asked}.json"
    if not path.is_file():
        there = ", ".join(sorted(each.stem for each in folder.glob("*.json"))) or "none yet"
        raise UserError(
            f"plan.profile={asked}: there is no file {path}. Known here: {there}. A profile is written by `er plan` on "
            f"the machine itself, into {FOLDER}/ below its paths.cache; copy it from there."
        )
    said = _read(path)
    return Profile(path, said["hardware"], said["hardware"] == here, config.plan.again, said["entries"])


def hardware(device: torch.device) -> dict[str, Any]:
    """Describe what has a say in how long a step takes; machines of one kind differ in their names, and share these."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {"device": name, "threads": torch.get_num_threads()}


def processor() -> str:
    """Return what the CPU calls itself."""
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _like(timed: list[int], shapes: Shapes) -> bool:
    """Whether batches are neither much larger than those that were timed, nor most of them much smaller."""
    tokens, (least, most) = shapes.prod(axis=1), timed
    return bool(tokens.max() <= most * BEYOND and np.median(tokens) * BEYOND >= least)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("(r)", "").replace("(tm)", "")).strip("-")


def _read(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if said["version"] != VERSION:
            raise ValueError(f"format {said['version']}, not {VERSION}")
        hardware = {name: said["hardware"][name] for name in ("device", "threads")}
        entries = {name: _entry(each) for name, each in said["entries"].items()}
        return {"hardware": hardware, "entries": entries}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is no profile of er ({error!r}). Delete it; `er plan` writes a new one.") from error


def _entry(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry, if it has all that is read of one."""
    least, most = map(int, said["tokens"])
    costs = {what: Cost(*map(float, cost)) for what, cost in said["costs"].items()}
    return {**said, "about": said["about"], "tokens": [least, most], "costs": costs, "torch": said["torch"]}
