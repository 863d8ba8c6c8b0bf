"""`er search-cut`: how deep a model can be cut for a task, from short runs at every layer."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from er.checks import settings
from er.config import CONF, Config

if TYPE_CHECKING:
    from er.studies.curve import Probe


@hydra.main(config_path=str(CONF), config_name="search_cut", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Probe every cut, and suggest the deepest that loses no more than `search.loss` points."""
    config = settings(cfg)
    logging.getLogger("er").setLevel(logging.WARNING)  # what each short run says is not for here
    from er.studies.search import search

    sys.stdout.write(report(config, search(config)))


def report(config: Config, probes: list[Probe]) -> str:
    """Write the curve, and what follows from it."""
    from er.commands.bench import table
    from er.studies.curve import smoothed, suggested

    curve = smoothed([probe.score for probe in probes])
    rows = [
        {
            "cut": str(each.k),
            "dev score": each.score,
            "smoothed": score,
            "warm %": (probes[0].step / each.step - 1) * 100,
        }
        for each, score in zip(probes, curve, strict=True)
    ]
    best, loss = suggested(probes, config.search.loss), config.search.loss
    found = f"cut={best.k}" if best.k else "none: every cut costs more than that"
    return (
        f"{config.task.name}, {config.model.name}, {config.method.name}: {config.search.epochs} epochs of at most "
        f"{config.search.examples} examples at every cut; layer 0 is the whole model\n\n{table(rows)}\n\n"
        f"The deepest cut within {loss:g} points of the whole model: {found}\n"
    )
