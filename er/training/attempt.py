"""A run's hold on its directory: no other process does it meanwhile, and what stopped it is left there."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from er import identity, results
from er.cache.publish import claim, wait
from er.config import Config
from er.errors import UserError

log = logging.getLogger(__name__)

LOCK = "run.lock"

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def attempt(config: Config, directory: Path) -> Iterator[None]:
    """Have the directory for this process alone, after any other that has it, and leave there why a run failed.

    A mistake of the user's leaves nothing, as it is printed; in a sweep it is a failure like others.
    """
    with ExitStack() as held:
        try:
            held.enter_context(_held(directory))
            (directory / results.FAILED).unlink(missing_ok=True)
            results.write_text(directory / results.BEGUN, json.dumps(identity.plain(config), ensure_ascii=False))
            held.enter_context(_logged(directory / results.LOG))
        except OSError as error:
            where = f"Cannot write the run to {directory}: {error.strerror}."
            raise UserError(f"{where} Set paths.runs elsewhere.") from error
        try:
            yield
        except Exception as error:
            mistake = isinstance(error, UserError)
            if not mistake or (_swept() and not (directory / results.NAME).exists()):
                given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
                leave(directory, config, given, str(error) if mistake else f"{type(error).__name__}: {error}")
            else:
                (directory / results.LOG).unlink()
            (directory / results.BEGUN).unlink()
            raise
        (directory / results.LOG).unlink()
        (directory / results.BEGUN).unlink()


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Hold the directory's lock, which the kernel lets go when this process dies; folders that are left empty go."""
    path = directory / LOCK
    with ExitStack() as held:
        while True:
            made = [each for each in directory.parents if not each.exists()]
            directory.mkdir(parents=True, exist_ok=True)
            file = held.enter_context(path.open("ab"))
            wait(lambda file=file: claim(file), directory, "run")  # type: ignore[misc]
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    break  # otherwise its last holder has deleted it, and others may hold a new one
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # at the first that is not empty
                for each in (directory, *made):
                    each.rmdir()


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Write what is logged to a file, too."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(FORMAT))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _swept() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def leave(directory: Path, config: Config, overrides: Sequence[str], error: str) -> None:
    """Write why a run failed, and all that it takes to look into it; the traceback is that of what is being handled."""
    path = directory / results.FAILED
    said = {
        "error": error,
        "command": shlex.join(["er", "train", *overrides]),
        "log": str((directory / results.LOG).absolute()),
        "traceback": traceback.format_exc() if sys.exc_info()[0] else None,
        "config": identity.plain(config),
    }
    log.error("%s; more in %s", error, path)
    results.write_text(path, json.dumps(said, indent=2, ensure_ascii=False))
