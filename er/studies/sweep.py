"""A sweep: all of it is looked at before any run starts, and at its end it says what came of each."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from hydra.core.utils import JobReturn, JobStatus

from er import asked, results
from er.asked import Asked
from er.errors import UserError
from er.studies.foresee import foresee, grouped, profile_of
from er.studies.order import ordered
from er.studies.planning import Setting
from er.studies.study import Point, Shelf, Study, survey
from er.training.attempt import leave

log = logging.getLogger(__name__)

Launch: TypeAlias = Callable[[list[list[str]], int], Sequence[JobReturn]]
"""A launcher's `launch`: the overrides of each run, and the number of the first."""

Job: TypeAlias = list[Point]
"""The runs that one process does."""

Stamps: TypeAlias = dict[Path, dict[str, int]]
"""When each run left a result, or a failure."""

LOST = "its process was lost"


@dataclass(frozen=True)
class Failure:
    """A run that has no result, and why."""

    point: Point
    error: str


def sweep(
    points: list[list[str]], launch: Launch, batch: int, skip_invalid: bool, progress: bool, together: int = 1
) -> int:
    """Do those runs of a sweep that are not done, and return the exit code.

    They are launched as jobs, `batch` at a time; a job does up to so many runs `together`.

    It is 2 where points are impossible, and then nothing is begun unless the sweep is to leave them out; it is 1 where
    a run has failed, which stops no other.
    """
    shelf = Shelf()
    with quiet():
        study = survey(points, shelf, progress)
    write(told(study))
    if study.impossible and not skip_invalid:
        write("Nothing was started. Correct these points, or leave them out with skip_invalid=true.")
        return 2
    if not study.runs:
        write("There is nothing else.")
        return 2
    asked.leave(Path(study.runs[0].config.paths.runs).expanduser(), [_asked(run) for run in study.runs])
    with quiet():
        todo = ordered([run for run in study.runs if not run.done], shelf)
        if todo:
            write(takes(foresee(todo, shelf, profile_of(study), timing=False)))
    del shelf  # texts and tokens that the runs have no part in
    failures: list[Failure] = []
    try:
        jobs = shared_out(todo, together)
        for start in range(0, len(jobs), batch):
            failures += launched(jobs[start : start + batch], launch, start)
    except (KeyboardInterrupt, SystemExit):  # Lightning makes the one into the other
        write("Interrupted. To issue the same command again does what is missing.")
        raise
    write(concluded(study, len(todo), failures))
    return 1 if failures else 0


@contextmanager
def quiet() -> Iterator[None]:
    """Keep from the log what each run says again of its task and model."""
    ours = logging.getLogger("er")
    level = ours.level
    ours.setLevel(logging.WARNING)
    try:
        yield
    finally:
        ours.setLevel(level)


def shared_out(runs: list[Point], together: int) -> list[Job]:
    """Put runs into jobs: those that can read the same batches together, as far as that is wanted."""
    if together == 1:
        return [[run] for run in runs]
    from er.studies.together import alike

    groups = grouped(runs, lambda run: alike(run.config)).values()
    jobs = [group[start : start + together] for group in groups for start in range(0, len(group), together)]
    # a job holds the folders of all its runs: where all take them in one order, no two wait for each other
    return [sorted(job, key=lambda run: run.directory) for job in jobs]


def overrides_of(job: Job) -> list[str]:
    """Return what composes a job: that of its run, or of the first of several and then those of all."""
    if len(job) == 1:
        return list(job[0].overrides)
    points = json.dumps([run.overrides for run in job])
    for special in ("'", "$"):  # to Hydra, and to JSON not
        points = points.replace(special, f"\\u{ord(special):04x}")
    return [*job[0].overrides, f"points='{points}'"]


def launched(jobs: list[Job], launch: Launch, number: int) -> list[Failure]:
    """Launch jobs; runs that went down with another one are launched again, as long as that gets any of them further.

    Where none of them was done, those that had begun are launched one by one, as nobody knows which of them it was.
    """
    runs = [run for job in jobs for run in job]
    before = {run.directory: _stamps(run) for run in runs}
    try:
        returned = launch([overrides_of(job) for job in jobs], number)
    except UserError as error:  # it takes no jobs at all
        return [Failure(run, str(error)) for run in runs]
    except Exception as error:  # whatever a launcher has to say; a run's own errors come back in what it returns
        log.error("The launcher gave up: %s: %s", type(error).__name__, error)
    else:
        return list(failed(jobs, returned, before))
    left = {run.directory: _left(run, before) for run in runs}
    known = [Failure(run, recorded(run)) for run in runs if results.FAILED in left[run.directory]]
    lost = [run for run in runs if not left[run.directory]]
    if len(lost) < len(runs):
        return known + (launched([[run] for run in lost], launch, number) if lost else [])
    begun = [run for run in lost if (run.directory / results.LOG).exists()]
    if len(runs) == 1 or not begun:
        return [_lost(run) for run in lost]
    alone = [failure for run in begun for failure in launched([[run]], launch, number)]
    rest = [[run] for run in lost if run not in begun]
    return alone + (launched(rest, launch, number) if rest else [])


def _lost(run: Point) -> Failure:
    """Return the failure of a run whose process ended without a word, which leaves one if it had begun."""
    if (run.directory / results.LOG).exists():
        leave(run.directory, run.config, run.overrides, LOST)
        (run.directory / results.BEGUN).unlink(missing_ok=True)
    return Failure(run, LOST)


def recorded(run: Point) -> str:
    """Return the error that a run has left."""
    return str(json.loads((run.directory / results.FAILED).read_text(encoding="utf-8"))["error"])


def failed(jobs: list[Job], returned: Sequence[JobReturn], before: Stamps) -> Iterator[Failure]:
    """Yield the runs that came back with an error; of several in a job, those that have no new result."""
    for job, said in zip(jobs, returned, strict=True):
        if said.status is JobStatus.COMPLETED:
            continue
        for run in job:
            if len(job) == 1 or results.NAME not in _left(run, before):
                left = len(job) > 1 and (run.directory / results.FAILED).exists()
                # the property of the name `return_value` raises, and prints as it does
                yield Failure(run, recorded(run) if left else f"{said._return_value}")


def _asked(run: Point) -> Asked:
    config, command = run.config, shlex.join(["er", "train", *run.overrides])
    names = (config.task.name, config.model.name, config.method.name)
    below = run.directory.relative_to(Path(config.paths.runs).expanduser())
    return Asked(str(below), *names, str(config.method.cut), str(config.seed), command)


def _stamps(run: Point) -> dict[str, int]:
    paths = [run.directory / name for name in (results.NAME, results.FAILED)]
    return {path.name: path.stat().st_mtime_ns for path in paths if path.exists()}


def _left(run: Point, before: Stamps) -> set[str]:
    """Return which ends of a run are there that were not before."""
    return {name for name, at in _stamps(run).items() if at != before[run.directory].get(name)}


def told(study: Study) -> str:
    """Say what the sweep is going to do."""
    done = sum(run.done for run in study.runs)
    impossible = sum(map(len, study.impossible.values()))
    counts = f"{study.points} points, {len(study.runs)} runs: {done} done, {len(study.runs) - done} to do"
    lines = [counts + (f"; {impossible} points are impossible:" if impossible else "")]
    for reason, points in study.impossible.items():
        lines += [reason, *(f"  {point}" for point in points)]
    return "\n".join(lines)


def takes(settings: list[Setting]) -> str:
    """Say what is to be stored, and how long it all takes as far as that was timed on this machine before."""
    stored = f"To be stored: {sum(each.own.bytes for each in settings) / 1e6:,.0f} MB"
    hours, runs = [each.hours for each in settings], [len(each.epochs) for each in settings]
    known = sum(each for each in hours if each is not None)
    of = sum(count for count, each in zip(runs, hours, strict=True) if each is not None)
    if not of:
        return f"{stored}; hours are not known yet: er plan with the same options times them."
    all_of = "" if of == sum(runs) else f" for {of} of {sum(runs)} runs, the others were never timed (er plan)"
    return f"{stored}; one after another on this machine at most {known:,.1f} hours{all_of}."


def concluded(study: Study, begun: int, failures: list[Failure]) -> str:
    """Say what came of a sweep, the runs that failed last."""
    impossible = sum(map(len, study.impossible.values()))
    counts = [f"{begun - len(failures)} done", f"{len(study.runs) - begun} skipped (done before)"]
    counts += [f"{impossible} points left out (impossible)"] * bool(impossible)
    lines = [f"Sweep: {', '.join(counts)}, {len(failures)} failed{':' if failures else '.'}"]
    for each in failures:
        path = each.point.directory / results.FAILED
        lines += [each.point.name, f"  {_first_line(each.error)}"]
        lines += [f"  {path}"] * path.exists()
    return "\n".join(lines)


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[0]


def write(text: str) -> None:
    """Print after all that was logged."""
    sys.stderr.flush()
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
