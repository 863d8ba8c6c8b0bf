"""Hydra finds sweepers in packages of this name: the one that `er train` uses, as thin as it can be."""

from __future__ import annotations

import sys
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, read_write

PROCESSES = 4
"""Runs that joblib does at once by default: one for each core, as it would have it, may be more than memory holds.

It divides the cores among the threads of its processes, unless OMP_NUM_THREADS says otherwise.
"""


class ErSweeper(BasicSweeper):
    """Sweeps over the points that Hydra's own sweeper would, after a look at all of them; see `er.studies.sweep`."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Set up the launcher as well; where its plugin is missing, say what to install."""
        if config.hydra.launcher.get("n_jobs") == -1:
            from joblib import cpu_count

            with read_write(config):
                config.hydra.launcher.n_jobs = min(PROCESSES, cpu_count())
        try:
            super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        except (ImportError, RuntimeError) as error:
            launcher, package = config.hydra.launcher._target_, config.hydra.launcher._target_.split(".")[1]
            raise HydraException(
                f"The launcher {launcher} is not there: pip install {package.replace('_', '-')}, or choose "
                "hydra/launcher=basic."
            ) from error

    def sweep(self, arguments: list[str]) -> Any:
        """Do what is missing; leave with an exit code where not all of it could be done."""
        from er.studies.sweep import sweep  # imported late: every command loads this file

        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        (points,) = self.split_arguments(overrides, None)
        batch, said = self.max_batch_size or len(points), self.config
        launch = self.launcher.launch
        if code := sweep(points, launch, batch, said.skip_invalid, said.trainer.progress, said.together):
            sys.exit(code)
        return []
