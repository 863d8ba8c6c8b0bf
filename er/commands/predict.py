"""`er predict`: what trained runs say of new texts."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from er.checks import settings
from er.config import CONF, Config
from er.errors import UserError

if TYPE_CHECKING:
    from er.tasks import Reader, Row

log = logging.getLogger(__name__)

STANDARD = "-"
"""Standard input, or output."""

PIPE = Path("/dev/stdin")
"""Standard input as a file that is read once, as JSON lines are."""


@hydra.main(config_path=str(CONF), config_name="predict", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Answer every text of the input."""
    config = settings(cfg)
    runs = [config.run] if isinstance(config.run, str) else config.run
    if not (isinstance(runs, list) and runs and all(isinstance(run, str) for run in runs)):
        raise UserError(
            f"run={config.run}: give a run's folder, or several: er predict 'run=[A,B]' input=... output=..."
        )
    if config.input is None or config.output is None:
        raise UserError(
            "Say what to read and where to write: er predict run=DIR input=FILE output=FILE ('-' for a pipe)."
        )
    predict(config, runs, config.input, config.output)


def predict(config: Config, runs: list[str], source: str, target: str) -> None:
    """Write a record for every text of `source` to `target`, all of them or none."""
    _check_target(target, config.overwrite)
    from tqdm import tqdm

    from er.tasks import readers
    from er.training.predict import Predictor
    from er.training.trained import load_run

    trained = [load_run(run) for run in runs]
    known = readers(trained[0].config.task)
    files = files_of(source, known)  # before any model is loaded
    predictor = Predictor(trained, config)
    every = 0.5 if sys.stderr.isatty() else 30
    shown = tqdm(unit="text", total=_count(files), mininterval=every, disable=not config.trainer.progress)
    with shown as bar, opened(target) as out:
        for answer in predictor.answers(rows_of(files, known)):
            out.write(json.dumps(answer) + "\n")
            bar.update()
    counts = [predictor.counts[what] for what in ("texts", "blank", "truncated")]
    log.info("%s: %d texts, %d of them blank, %d truncated", target, *counts)


def _check_target(target: str, overwrite: bool) -> None:
    path = Path(target).expanduser()
    if target != STANDARD and path.is_dir():
        raise UserError(f"output={target} is a folder. Name the file to write.")
    if target != STANDARD and path.exists() and not overwrite:
        raise UserError(f"output={target} exists already. Choose another file, or set overwrite=true.")


def files_of(source: str, known: Mapping[str, Reader]) -> list[Path]:
    """Return the files to read, in the order of their names; standard input holds JSON lines."""
    path = Path(source).expanduser()
    if source == STANDARD:
        return [PIPE]
    if path.is_file():
        found = [path]
    elif path.is_dir():
        found = sorted(file for file in path.iterdir() if file.is_file() and file.suffix.lower() in known)
    else:
        raise UserError(f"input={source}: there is no such file or folder (seen from {Path.cwd()}).")
    if not found or found[0].suffix.lower() not in known:
        raise UserError(f"input={source}: nothing to read. Expected files of these kinds: {' '.join(known)}.")
    return found


def rows_of(files: Iterable[Path], known: Mapping[str, Reader]) -> Iterator[Row]:
    """Read one file after the other."""
    for file in files:
        yield from known[".jsonl" if file == PIPE else file.suffix.lower()](file)


def _count(files: list[Path]) -> int | None:
    """Count the texts where that is quickly done: in JSON lines."""
    if any(file.suffix.lower() != ".jsonl" or not file.is_file() for file in files):
        return None
    total = 0
    for file in files:
        with file.open("rb") as lines:
            total += sum(1 for line in lines if line.strip())
    return total


@contextmanager
def opened(target: str) -> Iterator[IO[str]]:
    """Open the output: a file appears whole or not at all."""
    if target == STANDARD:
        yield sys.stdout
        return
    path = Path(target).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
