"""One run, from its configuration to its result."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from pytorch_lightning import Trainer, seed_everything
from safetensors.torch import save

from er import checks, encoders, identity, memory, paper, results
from er.choices import Monitor, OnDone
from er.config import Config, Model
from er.errors import UserError
from er.results import Result
from er.tasks import Task, load_task
from er.timing import Stopwatch
from er.training import cross_model, loggers, naming, ranks
from er.training.attempt import attempt
from er.training.cost import tokens_per_second
from er.training.data import RecyclingDataModule, Split, Tokens, labels_of
from er.training.loop import build_trainer
from er.training.methods import Parts, assemble
from er.training.module import RecyclingModule
from er.training.record import Record
from er.training.recycle import open_cache, recycle
from er.training.requeue import requeued

log = logging.getLogger(__name__)

WEIGHTS = "weights.safetensors"
"""What a run trained: the weights above the cut that moved, and the head."""

PREDICTIONS = "predictions.jsonl"
"""What the run says of every test example."""

DETAILS = "details.json"
"""How it does on each class, and which it takes for which."""

CHECKPOINTS = "checkpoints"

TOKENS = "tokens"
"""The folder of tokenised texts, beside the spaces of the cache."""


class Common(Protocol):
    """What runs that are done together load once, and read once."""

    runs: int

    def task(self, config: Config) -> Task:
        """Return the task of a run."""

    def tokens(self, config: Config) -> dict[str, Split]:
        """Return the tokenised splits of a run."""

    def share(self, splits: dict[str, Split]) -> None:
        """Have what is cached of a run's splits read with that of the others."""


def run(config: Config, common: Common | None = None) -> Result:
    """Do one run, unless it is done already; what an interrupted run has done is not done again.

    Other runs that are done together with this one have `common`.
    """
    asked = _asked(config, common)
    directory = asked.directory
    if (done := finished(directory, config.on_done)) is not None:
        return done
    with attempt(config, directory), requeued():
        if (done := finished(directory, config.on_done)) is not None:
            return done  # by another process, while this one waited
        log.info("%s: cut at layer %d of %d", directory, asked.k, encoders.depth(encoders.load_config(config.model)))
        if config.optim.name == "paper":
            paper.explain(config)
        result = _train(config, asked, common) if config.trainer.devices == 1 else _train_in_ranks(config, asked)
    log.info("%s: %s", directory, _summary(result))
    return result


@dataclass(frozen=True)
class Asked:
    """What a configuration asks for: which task, cut where, and the run that this is."""

    task: Task
    k: int
    named: dict[str, Any]
    directory: Path


def _asked(config: Config, common: Common | None = None) -> Asked:
    task = load_task(config.task, data_folder(config)) if common is None else common.task(config)
    depth = encoders.depth(encoders.load_config(config.model))
    k, named = naming.named(config, depth, {"model": encoders.source(config.model), "task": task.digest})
    return Asked(task, k, named, identity.run_dir(config, identity.run_id(named)))


def data_folder(config: Config) -> Path | None:
    """Return the folder of local data sets, if there is one."""
    return Path(config.paths.data).expanduser() if config.paths.data else None


def finished(directory: Path, on_done: OnDone) -> Result | None:
    """Return the result that is there, as far as the run may keep it."""
    path = directory / results.NAME
    if not path.exists():
        return None
    if on_done is OnDone.error:
        raise UserError(f"{directory} holds a result already. Set on_done=skip or on_done=overwrite.")
    if on_done is OnDone.overwrite:
        return None  # it stays until there is something to put in its place
    result = results.read(path)
    log.info("%s: done already, skipped: %s", directory, _summary(result))
    return result


def _train_in_ranks(config: Config, asked: Asked) -> Result:
    tokenized(config, asked.task)  # once, for all ranks to find it
    ranks.launch(_as_rank, config)
    return results.read(asked.directory / results.NAME)


def _as_rank(config: Config) -> None:
    _train(config, _asked(config))


def _train(config: Config, asked: Asked, common: Common | None = None) -> Result:
    task, directory = asked.task, asked.directory
    record = Record(directory / CHECKPOINTS, config.trainer.checkpoint_s, _monitored(config, task))
    seed_everything(config.seed, verbose=False)
    splits = tokenized(config, task) if common is None else common.tokens(config)
    parts = assemble(config, asked.k, task)
    with loggers.opened(config, asked.named, directory) as logger:
        trainer = build_trainer(config, record, logger)
        record.clock.device = trainer.strategy.root_device
        memory.reset(record.clock.device)
        cached = _recycle(config, parts, splits, record.clock)
        if common is not None:
            common.share(splits)
        module = RecyclingModule(parts, task, config.optim)
        order = config.seed if config.optim.order is None else config.optim.order
        data = RecyclingDataModule(splits, config.optim.batch_size, order, record.reading)
        test = fit(trainer, module, data, record)
        result = _result(config, asked, module, record, splits, cached, test)
        if common is not None:
            result.env["together"] = common.runs
        if ranks.rank() == 0:
            _keep(directory, module, task, result)
            loggers.send(logger, result, directory)
    return result


def _monitored(config: Config, task: Task) -> str | None:
    """Return the dev score that says which epoch is the best, if one is to."""
    if config.optim.monitor is not Monitor.score:
        return None
    if "dev" in task.unscored:
        raise UserError(
            f"optim.monitor=score: there is no {task.metric} of the dev split of {task.name}, which holds nothing to "
            "measure it on. Set optim.monitor=loss, or give another dev split."
        )
    return task.metric


def _result(
    config: Config,
    asked: Asked,
    module: RecyclingModule,
    record: Record,
    splits: dict[str, Split],
    cached: dict[str, Any] | None,
    test: dict[str, float],
) -> Result:
    """Put together what was run, what came out, and what it cost."""
    seconds = _seconds(record.clock, record.reading)
    return Result(
        run_id=identity.run_id(asked.named),
        identity=asked.named,
        config=identity.plain(config),
        metrics=record.best() | test,
        seconds=seconds,
        steps=module.trainer.global_step,
        cache=cached,
        split=asked.task.origin,
        parameters=_parameters(module),
        history=record.history,
        env=results.environment(_device(record.clock.device)),
        labels=asked.task.labels,
        tokens_s=tokens_per_second(splits, len(record.history), seconds),
        memory=memory.peaks(record.clock.device),
        depth=encoders.depth(encoders.load_config(config.model)),
        offset=asked.task.offset,
    )


def tokenized(config: Config, task: Task) -> dict[str, Split]:
    """Turn the task's splits into tokens and labels."""
    first_position = None
    if checks.separate(config):
        first_position = encoders.first_position(encoders.load_config(config.model))
    store = Path(config.paths.cache).expanduser() / TOKENS
    splits, source = _tokenized(config.model, task, store, first_position), config.method.source
    if source is None:
        return splits
    return cross_model.aligned(splits, _tokenized(source.model, task, store), config.model, source.model)


def _tokenized(model: Model, task: Task, store: Path, first_position: int | None = None) -> dict[str, Split]:
    tokenizer = encoders.load_tokenizer(model)
    return {
        name: Split(Tokens.of(features, tokenizer.pad_token_id, first_position), labels_of(features, task.head))
        for name, features in task.tokenize(tokenizer, store).items()
    }


def _recycle(config: Config, parts: Parts, splits: dict[str, Split], clock: Stopwatch) -> dict[str, Any] | None:
    """Fill the cache and let go of the lower layers; what is recorded says what it cost."""
    if parts.lower is None or not checks.recycled(config):
        return None
    cache = open_cache(config, parts.lower)
    clock.start("build")
    built = recycle(cache, parts.lower, splits, config, clock.device)
    clock.stop()
    parts.lower = None  # everything is a hit from here on
    where = np.concatenate([split.where for split in splits.values()])
    return {
        "space": cache.space.digest,
        "hits": built.hits,
        "misses": built.misses,
        "bytes": cache.nbytes(where),
        "cost": cache.cost(where),
    }


def fit(trainer: Trainer, module: RecyclingModule, data: RecyclingDataModule, record: Record) -> dict[str, float]:
    """Train, from the last checkpoint of an interrupted run if there is one, and test the best weights once."""
    last = record.path if record.path.exists() else None
    if last is not None:
        log.info("going on from %s", last)
    trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
    module.load_state_dict(record.weights, strict=False)
    trainer.test(module, datamodule=data, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("test/")}


def _keep(directory: Path, module: RecyclingModule, task: Task, result: Result) -> None:
    """Leave in the run directory what is worth keeping, the record last."""
    (directory / results.NAME).unlink(missing_ok=True)  # of the run that this one overwrites
    weights = {name: weight.contiguous().cpu() for name, weight in module.trained().items()}
    results.write_bytes(directory / WEIGHTS, save(weights))
    rows = task.predictions("test", module.logits["test"])
    results.write_text(directory / PREDICTIONS, "".join(json.dumps(row) + "\n" for row in rows))
    details = task.details("test", module.logits["test"])
    results.write_text(directory / DETAILS, json.dumps(details, indent=2, ensure_ascii=False))
    results.write(directory / results.NAME, result)
    shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)


def _seconds(run: Stopwatch, reading: Stopwatch) -> dict[str, float]:
    """Split the wall-clock time into build, read, train and evaluate, each second counted once."""
    read = reading.seconds["read"]
    seconds = run.seconds
    return {
        "build": seconds["build"],
        "read": read,
        "train": seconds["train"] - read,
        "evaluate": seconds["evaluate"],
    }


def _parameters(module: RecyclingModule) -> dict[str, int]:
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return {"held": sum(size for size, _ in sizes), "trained": sum(size for size, trains in sizes if trains)}


def _device(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return name if ranks.world() == 1 else f"{ranks.world()} x {name}"  # times compare with those of as many


def _summary(result: Result) -> str:
    shown = [f"test/{name}" for name in results.SCORES]
    metrics = ", ".join(f"{name} {result.metrics[name]:.4f}" for name in shown if name in result.metrics)
    return f"{metrics}, {sum(result.seconds.values()):.1f} s"
