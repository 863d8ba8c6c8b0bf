"""Taking a model apart without touching it: copies of its containers that share what they contain."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class PassOn(nn.Module):
    """Stands for a layer on the other side of the cut: what comes in goes out."""

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> tuple[Tensor, ...]:
        """Return `hidden` in the tuple that the encoder's loop unpacks."""
        return (hidden,)


class Entry(nn.Module):
    """Stands for the embeddings in the upper part: gives out the activation to resume from."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: Tensor | None = None

    @contextmanager
    def holding(self, hidden: Tensor) -> Iterator[None]:
        """Keep the activation for the time of one forward pass, and no longer than that in memory."""
        self.hidden = hidden
        try:
            yield
        finally:
            self.hidden = None

    def forward(self, *_: Any, **__: Any) -> Tensor | None:
        """Return the activation, whatever the embeddings would have been asked for."""
        return self.hidden


def skeleton(module: nn.Module) -> nn.Module:
    """Return a copy of `module` whose children and hooks can be exchanged; the children themselves are shared."""
    copied = copy.copy(module)
    own = {name: copy.copy(value) for name, value in vars(copied).items() if isinstance(value, dict | set)}
    vars(copied).update(own)
    return copied


def twin(module: nn.Module) -> nn.Module:
    """Return a copy of the whole tree that shares its tensors only: it can be in eval mode while the other trains."""
    if isinstance(module, Entry):
        return module  # one for all the modules that ask it for the activation
    copied = skeleton(module)
    for name, child in module._modules.items():
        copied._modules[name] = None if child is None else twin(child)
    return copied


def sharing(model: M) -> M:
    """Return a copy that can be changed and frozen on its own, over the same memory: only weights are not copied."""
    kept: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach(), weight.requires_grad) for weight in model.parameters()
    }
    return copy.deepcopy(model, kept | {id(buffer): buffer for buffer in model.buffers()})


def exchanged(module: nn.Module, parts: Mapping[str, nn.Module | None]) -> nn.Module:
    """Return `module` with other parts at some paths (`""`: itself); names, indices and all else are the same."""
    for path, part in parts.items():
        module = _exchanged(module, path, part)
    return module


def _exchanged(module: nn.Module, path: str, part: nn.Module | None) -> Any:
    if not path:
        return part
    name, _, rest = path.partition(".")
    copied = skeleton(module)
    copied._modules[name] = _exchanged(module.get_submodule(name), rest, part)
    return copied
