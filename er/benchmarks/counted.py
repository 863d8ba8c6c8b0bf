"""How much arithmetic a step is: the multiplications of its matrices, counted while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


ON_THE_CPU: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Attention that torch's counter does not know, unlike that of other devices."""


def multiplications(step: Callable[[], object]) -> int:
    """Run a step, and return how many multiplications its matrix products take."""
    with FlopCounterMode(display=False, custom_mapping=ON_THE_CPU) as counter:
        step()
    return int(counter.get_total_flops()) // 2
