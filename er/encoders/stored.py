"""Where a loaded weight lies on disk: what need not be in memory can be read there instead.

Loaded weights are mapped from their files, and a mapped weight takes up memory only once it is touched. So a lower part
that never runs costs nothing, as long as its fingerprint is taken from the files.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

PLACE = "_er_stored"


def remember(model: PreTrainedModel, folder: Path, pattern: str) -> None:
    """Note on every weight of a freshly loaded model in which file it lies, and under which name."""
    prefix = f"{model.base_model_prefix}."
    places: dict[str, tuple[Path, str]] = {}
    for file in sorted(folder.glob(pattern)):
        with safe_open(file, "pt") as opened:
            places |= {_modern(key).removeprefix(prefix): (file, key) for key in opened.keys()}  # noqa: SIM118
    for name, weight in model.named_parameters(remove_duplicate=False):
        if (place := places.get(name.removeprefix(prefix))) is not None:
            vars(weight)[PLACE] = (*place, weight._version)


def on_disk(weight: Tensor) -> Tensor:
    """Return the weight as its file has it; itself where it has none, or was changed since it was loaded."""
    file, key, version = vars(weight).get(PLACE, (None, None, None))
    if file is None or version != weight._version or not isinstance(weight, nn.Parameter):
        return weight
    with safe_open(file, "pt") as opened:
        read: Tensor = opened.get_tensor(key)
    return read.to(weight.dtype)


def _modern(key: str) -> str:
    """Old checkpoints call the weights of their norms otherwise; `transformers` renames these alone."""
    return key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
