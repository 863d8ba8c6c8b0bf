"""What becomes of the jobs of a sweep: they are waited for, each to its own end, and the lost are told apart."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from submitit import SlurmJob
from submitit.core.core import InfoWatcher, Job
from submitit.core.utils import FailedJobError, UncompletedJobError

from er.errors import UserError

log = logging.getLogger(__name__)

GONE = "GONE"
"""The state of a job that Slurm has forgotten, some minutes after its end."""

GRACE = 15
"""Seconds that a result may take to appear on this machine, after its job has ended on another."""

ENDED = {GONE, "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"}
ENDED |= {"OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"}
"""The states after which nothing comes. While it is being requeued, a job is COMPLETING, then PENDING."""


class Queue(InfoWatcher):
    """Asks `squeue`, which every cluster has, where submitit would ask `sacct`, which needs accounting."""

    def __init__(self, delay_s: int) -> None:
        super().__init__(delay_s)
        self._ended: dict[str, float] = {}

    def patience(self, job_id: str) -> float:
        """Return how many seconds to wait yet for the result of a job; of many lost ones, each has waited meanwhile."""
        return max(0.0, GRACE - (time.time() - self._ended.get(job_id, time.time())))

    def get_state(self, job_id: str, mode: str = "standard") -> str:
        """Return the state of one of the watched jobs."""
        return self.get_info(job_id, mode).get("State", "UNKNOWN")

    def is_done(self, job_id: str, mode: str = "standard") -> bool:
        """Tell whether nothing comes of a job any more."""
        return self.get_state(job_id, mode) in ENDED

    def update(self) -> None:
        """Ask for all jobs at once; while Slurm does not answer, nothing has changed."""
        command = ["squeue", "--me", "--array", "--states=all", "--noheader", "--format=%i|%T"]
        self._last_status_check = time.time()
        try:
            said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        except (OSError, subprocess.SubprocessError) as error:
            why = getattr(error, "stderr", None) or error
            log.warning("squeue does not answer (%s). Results still arrive; a cancelled job goes unnoticed.", why)
            return
        states = dict(line.split("|") for line in said.splitlines() if "|" in line)
        for job in self._registered:
            if job not in self._ended:
                self._info_dict[job] = {"State": states.get(job, GONE)}
                if self._info_dict[job]["State"] in ENDED:
                    self._ended[job] = time.time()


@contextmanager
def refused() -> Iterator[None]:
    """Say what Slurm says where it takes no jobs."""
    if shutil.which("sbatch") is None:
        raise UserError(
            "There is no sbatch here. Issue the command on a login node of the cluster, or with hydra/launcher=joblib."
        )
    try:
        yield
    except (FailedJobError, subprocess.SubprocessError) as error:
        raise UserError(f"Slurm has not taken the jobs: {error} See hydra.launcher.* in --cfg hydra.") from error


def watched(jobs: Sequence[SlurmJob[Any]]) -> Sequence[SlurmJob[Any]]:
    """Have jobs followed by `squeue`."""
    queue = Queue(delay_s=30)
    for job in jobs:
        job.watcher = queue  # type: ignore[assignment]
        queue.register_job(job.job_id)
    log.info("%d jobs, from %s; they say more in %s", len(jobs), jobs[0].job_id, jobs[0].paths.folder)
    return jobs


def bounded(executor: Any, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], most: int) -> list[Job[Any]]:
    """Start a process for each call, `most` at a time, which share the cores."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // min(most, len(calls)))))
    jobs: list[Job[Any]] = []
    for call in calls:
        while sum(not job.done() for job in jobs) >= most:
            time.sleep(0.5)
        jobs.append(executor.submit(function, *call))
    return jobs


def collected(jobs: Sequence[Job[Any]], overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
    """Wait for every job, and return what each has given."""
    returned = []
    try:
        for job, said in zip(jobs, overrides, strict=True):
            returned.append(_returned(job, said))
            log.info("%d of %d jobs have ended", len(returned), len(jobs))
    except BaseException:
        end = f" (scancel {jobs[0].job_id.split('_')[0]} ends those)" if isinstance(jobs[0], SlurmJob) else ""
        log.warning("No longer waiting; jobs go on by themselves%s.", end)
        raise
    return returned


def _returned(job: Job[Any], overrides: Sequence[str]) -> JobReturn:
    job.wait()
    if isinstance(job.watcher, Queue):
        job._results_timeout_s = job.watcher.patience(job.job_id)  # type: ignore[assignment]
    try:
        given: JobReturn = job.results()[0]
        return given
    except (UncompletedJobError, FailedJobError) as error:
        lost = JobReturn(overrides=overrides, status=JobStatus.FAILED)
        lost.return_value = UserError(_why(job, error))
        return lost


def _why(job: Job[Any], error: Exception) -> str:
    """Say in one line why a job has given nothing."""
    where = f"job {job.job_id} said more in {job.paths.stdout}"
    if not job.paths.stdout.exists():
        return f"Job {job.job_id} was cancelled before it began."
    if isinstance(error, UncompletedJobError):
        return f"It ended without a result ({job.state}): cancelled, killed, or out of memory or time; {where}"
    lines = [line for line in str(error).splitlines() if line.strip() and "Error" in line]
    return f"{lines[-1].strip() if lines else 'It failed'}; {where}"
