"""A finished run, found again: what it was, and the weights that it trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from er import checks, encoders, results
from er.choices import Precision
from er.config import Config, Model
from er.errors import UserError
from er.results import Result
from er.tasks import unlabelled
from er.training import cross_model
from er.training.run import WEIGHTS

EXPECTED = " Give the folder of a run: runs/TASK/MODEL/METHOD-ID."


@dataclass(frozen=True)
class Trained:
    """A finished run: its record, its configuration, and what it trained, by the names in its module."""

    directory: Path
    result: Result
    config: Config
    weights: dict[str, Tensor]

    @property
    def k(self) -> int:
        """The cut layer."""
        return int(self.result.identity["cut"])

    @property
    def labels(self) -> list[str]:
        """The names of the outputs, in order."""
        return self.result.labels

    @property
    def outputs(self) -> int:
        """Width of the head's last layer."""
        return len(self.labels)

    @property
    def head(self) -> str:
        """What the head reads: `sequence`, `token` or `span`."""
        return unlabelled(self.config.task, self.labels, [])[0].head


def load_run(path: str | Path) -> Trained:
    """Find a finished run again, given its folder, and make sure that the base model is still the one it was.

    >>> run = load_run(folder)
    >>> run.labels
    ['animal', 'tool']
    >>> run.config.method.name, run.k
    ('reduced', 2)
    """
    directory = Path(path).expanduser()
    record = directory / results.NAME
    if not record.is_file():
        raise UserError(_not_finished(directory))
    result = results.read(record)
    config = _settings(result, record)
    if config.model.random:
        raise UserError(
            f"{directory}: model.random=true: a run on random weights is for timing, and they are not kept."
        )
    if not result.labels:
        raise UserError(f"{record} does not name its labels, as an older er wrote it. Train again (on_done=overwrite).")
    _check_base(config, result, directory)
    return Trained(directory, result, config, _weights(directory / WEIGHTS))


def _not_finished(directory: Path) -> str:
    if not directory.is_dir():
        return f"run={directory}: there is no such folder (seen from {Path.cwd()}).{EXPECTED}"
    if (directory / "checkpoints").is_dir():
        return f"run={directory} is not finished: it has no {results.NAME}. Issue its `er train` command again."
    inside = sorted(record.parent for record in directory.rglob(results.NAME))[:3]
    hint = f" Did you mean {' or '.join(map(str, inside))}?" if inside else EXPECTED
    return f"run={directory} is no run: it has no {results.NAME}.{hint}"


def _settings(result: Result, record: Path) -> Config:
    """Return the configuration that a record holds; what it does not name is as it is by default."""
    try:
        said = OmegaConf.create(result.config)
        said.trainer.precision = Precision(said.trainer.precision).name  # the one whose value is not its name
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), said))
        assert isinstance(config, Config)
        return replace(config, task=replace(config.task, offset=result.offset or config.task.offset))
    except (OmegaConfBaseException, AttributeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{record} holds a configuration that this er does not know ({reason}). Use the version that wrote it: "
            f"{result.env.get('packages', {}).get('er', 'unknown')}."
        ) from error


def _check_base(config: Config, result: Result, directory: Path) -> None:
    """Refuse base models other than those that the run was trained on."""
    named = result.identity
    pairs: list[tuple[Model, Any, Any]] = []
    encoders.load_config(config.model)  # says so if there is no such model
    pairs.append((config.model, named["model"]["source"], encoders.source(config.model)))
    if config.method.source is not None:
        encoders.load_config(config.method.source.model)
        pairs.append((config.method.source.model, named.get("source"), cross_model.named(config.method.source)))
    for model, then, now in pairs:
        if then != now:
            raise UserError(
                f"{directory}: the weights or the config.json in model.path={model.path} are not those that the run "
                f"was trained on (digest {now}, then {then}). Restore them, or train again."
            )


def _weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Restore it, or train again (on_done=overwrite).") from error


def check_joint(trained: Trained) -> None:
    """Refuse to take away what no single model can do."""
    if trained.config.method.source is not None:
        raise UserError(
            f"{trained.directory}: method={trained.config.method.name} adds what one model made of a text to the "
            "embeddings of another, which no single model can do. Use `er predict`, or train with method=reduced."
        )
    if checks.separate(trained.config):
        raise UserError(
            f"{trained.directory}: task.encode=separate runs the two texts of an input apart through the lower layers, "
            "which no plain model does. Use `er predict`, or train with task.encode=joint."
        )
