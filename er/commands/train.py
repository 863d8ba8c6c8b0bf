"""`er train`: one run; `-m` sweeps."""

from __future__ import annotations

import json

import hydra
from omegaconf import DictConfig

from er.checks import settings
from er.config import CONF, Config
from er.errors import UserError


@hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Make sure the activations exist, train above the cut, evaluate, write `result.json`."""
    train(settings(cfg))


def train(config: Config) -> None:
    """Do a run, or those that a sweep does together."""
    from er.training.run import run  # imported late: --help and a wrong option answer at once

    if config.points is None:
        run(config)
    else:
        together(json.loads(config.points))


def together(points: list[list[str]]) -> None:
    """Do the runs of several points together; those that fail are told when all have ended."""
    from er.studies.grid import composed
    from er.studies.together import run_together

    given = run_together([settings(composed("train", point)) for point in points], points)
    errors = [each for each in given if isinstance(each, Exception)]
    if errors:
        raise UserError(f"{len(errors)} of {len(given)} runs failed: " + "; ".join(map(str, errors)))
