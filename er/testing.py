"""Tiny models of every family, checkpoints and batches for them, built in code, and what to compare them by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import (  # type: ignore[import-untyped]
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from er.encoders.families import FAMILIES as BY_TYPE
from er.encoders.load import model_class

FAMILIES = [f"{kind}+{variant}".rstrip("+") for kind, family in BY_TYPE.items() for variant in family.samples]
"""Every family that can be cut, and its variants that differ where it matters: `deberta-v2`, `deberta-v2+conv`."""

HEADS: dict[str | None, Any] = {
    None: AutoModel,
    "sequence": AutoModelForSequenceClassification,
    "token": AutoModelForTokenClassification,
    "qa": AutoModelForQuestionAnswering,
}

SPECIAL = ("[PAD]", "[SEP]", "[CLS]", "[UNK]", "[MASK]")
"""The specials, those first whose ids a configuration may ask for."""


def tiny(
    family: str = "bert", head: str | None = None, layers: int = 3, attention: str = "eager", **config: Any
) -> PreTrainedModel:
    """Return a model of a family (one of FAMILIES) with random weights, the same ones each time.

    No weight is left at a value that hides mistakes, as a bias of zero would.
    """
    settings = tiny_config(family, layers, **config)
    kind = model_class(HEADS[head], settings)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model: PreTrainedModel = kind._from_config(settings, attn_implementation=attention)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


def tiny_config(family: str, layers: int = 3, **config: Any) -> PretrainedConfig:
    """Return the configuration of a tiny model."""
    kind, _, variant = family.partition("+")
    options = {**BY_TYPE[kind].samples[variant], "num_hidden_layers": layers, "num_labels": 2, **config}
    settings: PretrainedConfig = CONFIG_MAPPING[kind](**options)
    return settings


def padded_batch(config: PretrainedConfig, lengths: Sequence[int] = (9, 5, 2), seed: int = 0) -> dict[str, Tensor]:
    """Return inputs of these lengths, padded to the longest, as a tokenizer of this model would give them."""
    generator = torch.Generator().manual_seed(seed)
    shape, ends = (len(lengths), max(lengths)), torch.tensor(lengths)[:, None]
    ids = torch.randint(len(SPECIAL), config.vocab_size, shape, generator=generator)
    if config.eos_token_id is not None:
        ids.scatter_(1, ends - 1, config.eos_token_id)
    real = torch.arange(max(lengths)) < ends
    batch = {"input_ids": ids.where(real, torch.tensor(config.pad_token_id)), "attention_mask": real.long()}
    if getattr(config, "type_vocab_size", 0) > 1:
        batch["token_type_ids"] = torch.randint(2, shape, generator=generator) * real
    return batch


def tiny_tokenizer(config: PretrainedConfig) -> PreTrainedTokenizerFast:
    """Return a WordPiece tokenizer that knows single letters and digits, with the special ids that `config` names."""
    ids = _special_ids(config)
    pieces = [mark + letter for mark in ("", "##") for letter in "abcdefghijklmnopqrstuvwxyz0123456789.,-'?"]
    free = (number for number in range(config.vocab_size) if number not in ids.values())
    vocabulary = ids | dict(zip(pieces, free, strict=False))
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, ids[name]) for name in ("[CLS]", "[SEP]")],
    )
    types = ["token_type_ids"] if getattr(config, "type_vocab_size", 0) > 1 else []
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", *types, "attention_mask"],
        **{f"{name.strip('[]').lower()}_token": name for name in SPECIAL},
    )


def tiny_checkpoint(path: Path, family: str = "bert", head: str | None = None, **options: Any) -> Path:
    """Write a tiny model and its tokenizer as a checkpoint: `model=hf model.path=...` takes it."""
    model = tiny(family, head, **options)
    model.save_pretrained(path)
    tiny_tokenizer(model.config).save_pretrained(path)
    return path


def tensors(output: Any) -> list[Tensor]:
    """Return every tensor in a model's output, in order."""
    if isinstance(output, Tensor):
        return [output]
    parts = output.to_tuple() if hasattr(output, "to_tuple") else output
    return [tensor for part in parts for tensor in tensors(part)] if isinstance(parts, tuple | list) else []


def same(one: Any, other: Any) -> bool:
    """Whether two outputs are bitwise equal."""
    ours, theirs = tensors(one), tensors(other)
    return len(ours) == len(theirs) > 0 and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def loss(output: Any) -> Tensor:
    """Return some number that depends on every tensor of an output."""
    return torch.stack([tensor.float().square().mean() for tensor in tensors(output)]).sum()


def gradients(model: nn.Module, output: Any) -> dict[str, Tensor]:
    """Return the gradients that an output's loss gives a model, and leave none behind."""
    value = loss(output)
    if value.requires_grad:
        value.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def _special_ids(config: PretrainedConfig) -> dict[str, int]:
    wanted = {"[PAD]": config.pad_token_id, "[SEP]": config.eos_token_id}
    ids = {name: number for name, number in wanted.items() if number is not None}
    free = (number for number in range(len(SPECIAL)) if number not in ids.values())
    return {name: ids[name] if name in ids else next(free) for name in SPECIAL}
