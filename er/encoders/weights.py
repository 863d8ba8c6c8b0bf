"""The files with a model's weights: safetensors, or pickles turned into them once."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from er.config import Model
from er.encoders.kept import kept
from er.encoders.locate import folder
from er.errors import UserError

log = logging.getLogger(__name__)

SAFE = ("model*.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model*.bin",)


def weights(model: Model) -> Path:
    """Return a folder with the model's weights as safetensors."""
    found = folder(model, SAFE)
    if any(found.glob(SAFE[0])):
        return found
    found = folder(model, PICKLED)
    if any(found.glob(PICKLED[0])):
        return converted(found)
    raise UserError(
        f"{found} has no weights: neither model.safetensors nor pytorch_model.bin. "
        "Copy them there, or set model.random=true if random weights will do (for timing only)."
    )


def converted(source: Path) -> Path:
    """Return a folder with the pickled weights of `source` as safetensors, written once and kept.

    The unpickler is allowed tensors and nothing else, and the source folder is left as it is.
    """
    pickles = sorted(source.glob(PICKLED[0]))

    def make(target: Path) -> None:
        log.info("converting the pickled weights of %s into safetensors, once", source)
        tensors = {name: tensor for path in pickles for name, tensor in _unpickled(path).items()}
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})

    return kept(pickles, make)


def _unpickled(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise UserError(
            f"{path} is damaged, or holds more than tensors, and unpickling that could run code. "
            "Use a copy of the model with model.safetensors, or convert it yourself where you trust it."
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(tensor, Tensor) for tensor in loaded.values()):
        raise UserError(f"{path} holds more than named tensors. Use a copy of the model with model.safetensors.")
    return {name: tensor.clone().contiguous() for name, tensor in loaded.items()}  # safetensors writes no shared memory
