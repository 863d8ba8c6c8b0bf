"""The identity of a lower part: what its activations depend on, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from er.encoders.cut import Lower
from er.encoders.stored import on_disk

# Depth, head and decoder lie above the cut; dropout is off below it; the rest is names and bookkeeping. A field that is
# forgotten here costs a rebuild, one too many would serve wrong activations: when in doubt, leave it out.
NO_SAY = re.compile(
    r"""
    n_layers | num_(hidden_|decoder_)?layers | is_encoder_decoder | decoder_bias
    | .*dropout(_prob)? | (initializer|pooler|classifier|summary|sparse_pred|tie|output)_.*
    | (bos|eos|sep|cls|mask|decoder_start)_token_id
    | id2label | label2id | num_labels | problem_type | finetuning_task | task_specific_params
    | _.* | architectures | transformers_version | (torch_)?dtype | attn_implementation | adapters | tokenizer_class
    | use_cache | return_dict | gradient_checkpointing | reference_compile | deterministic_flash_attn
    | repad_logits_with_grad
    """,
    re.VERBOSE,
)


def fingerprint(lower: Lower, stored: bool = False) -> str:
    """Return 32 hex digits that change when the lower part's activations can: weights, layers, numeric configuration.

    Models that differ above the cut, in their head, or in where they were loaded from share it. `k` itself is not in
    it, nor is the attention implementation, whose variants agree to rounding. With `stored`, weights are read from the
    files they were loaded from, one at a time: a lower part that need not run then never takes up memory.
    """
    tensors = lower.tensors()
    if stored:
        tensors = ((name, on_disk(tensor)) for name, tensor in tensors)
    return digest(tensors, numerics(lower.config))


def numerics(config: PretrainedConfig) -> dict[str, Any]:
    """Return the fields that can change an activation and differ from the family's defaults.

    Defaults are left out, so that a new field of a later `transformers` does not change what old caches are called.
    """
    given, usual = config.to_dict(), type(config)().to_dict()
    unusual = {name: value for name, value in given.items() if value != usual.get(name) and not NO_SAY.fullmatch(name)}
    return {"model_type": config.model_type} | unusual


def digest(tensors: Iterable[tuple[str, Tensor]], settings: Mapping[str, Any]) -> str:
    """Digest settings and named tensors, one tensor at a time; the order of the names counts."""
    state = blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=16)
    for name, tensor in tensors:
        state.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()
