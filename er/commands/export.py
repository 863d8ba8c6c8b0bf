"""`er export`: a trained run as a checkpoint or an adapter that loads without this package."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from er.checks import settings
from er.config import CONF
from er.errors import UserError


@hydra.main(config_path=str(CONF), config_name="export", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Write the run's model to a folder."""
    config = settings(cfg)
    if not isinstance(config.run, str) or config.to is None:
        raise UserError(
            f"run={config.run} to={config.to}: give one run's folder and where to: er export run=DIR to=DIR."
        )
    from er.serving.export import export

    export(config.run, config.to, config.overwrite)
