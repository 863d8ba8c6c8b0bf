"""`er predict`: what trained runs say of new texts."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from er.checks import settings
from er.commands.unfinished import Unfinished, unfinished
from er.config import CONF, Config
from er.errors import UserError

if TYPE_CHECKING:
    from er.serving.predict import Predictor
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
    from er.serving.predict import Predictor
    from er.serving.trained import load_run
    from er.tasks import readers

    trained = [load_run(run) for run in runs]
    known = readers(trained[0].config.task)
    files = files_of(source, known)  # before any model is loaded
    total = count(files, known)  # says so if one cannot be read
    predictor = Predictor(trained, config)
    with opened(target, files, predictor) as out:
        predictor.counts.update(out.done)
        _write(predictor, rows_of(files, known), out, total, config.trainer.progress)
    counts = [predictor.counts[what] for what in ("texts", "blank", "truncated")]
    log.info("%s: %d texts, %d of them blank, %d truncated", target, *counts)


def _write(predictor: Predictor, rows: Iterator[Row], out: Output, total: int | None, progress: bool) -> None:
    """Write the answers that are not written yet."""
    from tqdm import tqdm

    done = predictor.counts["texts"]
    if done:
        log.info("%d texts are answered already", done)
    every = 0.5 if sys.stderr.isatty() else 30
    with tqdm(unit="text", total=total, initial=done, mininterval=every, disable=not progress) as bar:
        for number, answer in enumerate(predictor.answers(islice(rows, done, None)), start=done + 1):
            out.write(json.dumps(answer) + "\n")
            bar.update()
            if number % predictor.chunk == 0:
                out.keep(predictor.counts)


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


def count(files: list[Path], known: Mapping[str, Reader]) -> int | None:
    """Count the texts, for the time that is left: lines, or what a reader finds; a pipe is not read twice."""
    if files == [PIPE]:
        return None
    return sum(_lines(file) if file.suffix.lower() == ".jsonl" else _rows(file, known) for file in files)


def _rows(file: Path, known: Mapping[str, Reader]) -> int:
    return sum(1 for _ in rows_of([file], known))


def _lines(file: Path) -> int:
    try:
        with file.open("rb") as lines:
            return sum(1 for line in lines if not line.isspace())
    except OSError:
        return 0  # the reader will say so


class Piped:
    """Standard output, of which nothing is kept."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}

    def write(self, line: str) -> None:
        """Write a line."""
        sys.stdout.write(line)

    def keep(self, done: Mapping[str, int]) -> None:
        """Hand on what was written."""
        sys.stdout.flush()


Output = Piped | Unfinished


@contextmanager
def opened(target: str, files: list[Path], predictor: Predictor) -> Iterator[Output]:
    """Open the output; where the same files were to be answered by the same runs, what is there is gone on with."""
    if target == STANDARD:
        yield Piped()
        return
    told = [predictor.told(), [[str(file.resolve()), *_state(file)] for file in files]]
    with unfinished(Path(target).expanduser(), told) as out:
        yield out


def _state(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns
