"""What `er bench` runs the arms on: a task's own training inputs, or random tokens of given lengths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from er import encoders
from er.config import Config
from er.encoders.locate import shaped
from er.errors import UserError
from er.tasks import load_task
from er.training.data import Split, Tokens
from er.training.run import data_folder, tokenized

CLASSES = 3
"""Labels of the random inputs."""

USUAL = [64]
"""Tokens of the inputs of a model that is known by its shape alone, and so has no tokenizer: as most tasks have."""


@dataclass(frozen=True)
class Workload:
    """Inputs with labels, and the head that reads them: as much of a task as has a say in how long a step takes."""

    name: str
    head: str
    outputs: int
    split: Split


def workload(config: Config) -> Workload:
    """Return the training split of the task, or random tokens where `bench.tokens` gives their lengths."""
    tokens = config.bench.tokens or (USUAL if shaped(config.model) else None)
    if tokens is not None:
        return random(config, tokens)
    task = load_task(config.task, data_folder(config))
    return Workload(task.name, task.head, task.outputs, tokenized(config, task)["train"])


def random(config: Config, tokens: list[int]) -> Workload:
    """Return inputs of random tokens to be classified, enough for every round; no tokenizer is needed."""
    model = encoders.load_config(config.model)
    shortest, longest = lengths_asked(tokens, encoders.family_of(model.model_type).positions(model))
    draw = np.random.default_rng(config.seed)
    size = config.bench.batches * max(config.optim.batch_size, config.bench.inference_batch_size)
    lengths = draw.integers(shortest, longest, size=size, endpoint=True)
    ids = [draw.integers(model.vocab_size, size=length) for length in lengths]
    labels = torch.from_numpy(draw.integers(CLASSES, size=len(ids)))
    name = f"random-{shortest}" if shortest == longest else f"random-{shortest}-{longest}"
    return Workload(name, "sequence", CLASSES, Split(Tokens({"input_ids": ids}, model.pad_token_id or 0), labels))


def lengths_asked(tokens: list[int], limit: int | None) -> tuple[int, int]:
    """Return the shortest and the longest input that `bench.tokens` asks for, if the model can take them."""
    shortest, longest = (tokens * 2)[:2] if len(tokens) in (1, 2) else (0, 0)
    if not 1 <= shortest <= longest <= (limit or longest):
        raise UserError(
            f"bench.tokens={tokens}: give the length of all inputs ([128]), or the shortest and the longest "
            f"([40,400]), 1 to {limit or 'any number'} tokens."
        )
    return shortest, longest
