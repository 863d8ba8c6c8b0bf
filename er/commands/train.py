"""`er train`: one run; `-m` sweeps."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from er.checks import settings
from er.config import CONF


@hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Make sure the activations exist, train above the cut, evaluate, write `result.json`."""
    config = settings(cfg)
    from er.training.run import run  # imported late: --help and a wrong option answer at once

    run(config)
