"""What each storage dtype makes of a real model's activations; `pytest -m slow -s` prints it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from er import encoders
from er.cache import codec
from er.config import Config
from er.tasks import load_task
from er.training.recycle import encoder
from er.training.run import tokenized

MEAN = {"float32": 0.0, "float16": 3e-4, "bfloat16": 3e-3, "int8": 0.02}
"""The most that a value may be off on average, in units of the activations' root mean square."""


@pytest.mark.slow
def test_each_storage_dtype_is_as_exact_as_it_is_said_to_be(composed: Callable[..., Config]) -> None:
    config = composed("task=stdlib_docs", "model=minilm_l6")
    tokens = tokenized(config, load_task(config.task, None))["dev"].tokens
    lower = encoders.split(encoders.load_model(config.model), 3)[0]
    encode = encoder(lower, tokens, config.trainer.precision, torch.device("cpu"))
    packed = torch.cat([encode(np.array([row]))[0] for row in range(len(tokens))])

    for storage, most in MEAN.items():
        back = codec.decode(codec.encode(packed, storage), torch.float32)
        error = (back - packed).abs() / packed.square().mean().sqrt()
        print(f"{storage}: off by {error.mean():.1e} on average, {error.max():.1e} at most")  # noqa: T201
        assert error.mean() <= most
