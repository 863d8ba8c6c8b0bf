"""Hydra finds launchers in packages of this name: submitit's, which outlive what befalls single jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher
from omegaconf import OmegaConf


class SlurmLauncher(BaseSubmititLauncher):
    """Hands runs to Slurm as one array, and returns what came of each, of those that were cancelled or killed, too."""

    _EXECUTOR = "slurm"

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit all, and wait for all."""
        from er import jobs  # imported late, as submitit is: every command loads this file

        calls = self._calls(job_overrides, initial_job_idx)
        with jobs.refused():
            submitted = self._executor().map_array(self, *zip(*calls, strict=True))
        return jobs.collected(jobs.watched(submitted), job_overrides)

    def _calls(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[tuple[Any, ...]]:
        """Return the arguments with which each job calls this launcher again, as submitit's own gives them."""
        return [
            (list(overrides), "hydra.sweep.dir", number, f"job_id_for_{number}", Singleton.get_state())
            for number, overrides in enumerate(job_overrides, first)
        ]

    def _executor(self) -> Any:
        """Return submitit's executor, as the configuration wants it."""
        import submitit

        options, kind, shared = dict(self.params), self._EXECUTOR, set(OmegaConf.structured(BaseQueueConf))
        timeouts = options.pop("max_num_timeout", 0)
        executor = submitit.AutoExecutor(options.pop("submitit_folder"), cluster=kind, slurm_max_num_timeout=timeouts)
        executor.update_parameters(**{name if name in shared else f"{kind}_{name}": options[name] for name in options})
        return executor


class LocalLauncher(SlurmLauncher):
    """Does each run in a process of its own on this machine, `array_parallelism` at a time."""

    _EXECUTOR = "local"

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Start one whenever another has ended."""
        from er import jobs

        most = self.params.pop("array_parallelism")
        calls = self._calls(job_overrides, initial_job_idx)
        submitted = jobs.bounded(self._executor(), self, calls, most)
        return jobs.collected(submitted, job_overrides)
