"""The only file that touches the `adapters` library: where adapters go, and which weights are theirs."""

from __future__ import annotations

from torch import nn

from er.config import Adapter

NAME = "er"
BOTTLENECKS = ("double_seq_bn", "seq_bn", "par_bn")


def add_adapter(model: nn.Module, adapter: Adapter, k: int) -> None:
    """Put an untrained adapter into the layers of `model` from `k` on.

    Its up-projection starts at zero: an untrained adapter changes nothing. None is put below the cut,
    since it would change what is cached.
    """
    import adapters

    adapters.init(model)
    model.add_adapter(NAME, config=_config(model, adapter, k), set_active=True)


def _config(model: nn.Module, adapter: Adapter, k: int) -> object:
    from adapters import AdapterConfig

    options: dict[str, object] = {"leave_out": list(range(k))}
    if adapter.kind in BOTTLENECKS:
        options |= {
            "reduction_factor": model.config.hidden_size / adapter.bottleneck,
            "non_linearity": "gelu_new",  # the paper's adapters use it
            "init_weights": "mam_adapter",  # zero up-projection
        }
    return AdapterConfig.load(adapter.kind, **options)


def is_adapter(name: str) -> bool:
    """Tell whether a parameter of this name belongs to our adapter."""
    return f".{NAME}." in name
