"""Loading: configuration, tokenizer and weights of a model, each checked before it is trusted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    CONFIG_MAPPING,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from er.config import Model
from er.encoders.families import FAMILIES, family_of
from er.encoders.locate import TOKENIZER, folder, settings
from er.encoders.stored import remember
from er.encoders.weights import SAFE, weights
from er.errors import UserError

FRESH = ("pooler", "qa_outputs")
"""Parts of a base model that a task replaces: a checkpoint may lack them, or bring some that are not needed."""


def load_config(model: Model) -> PretrainedConfig:
    """Return the configuration of a model, read as plain JSON and refused if it names code."""
    said, path = settings(model)
    model_type = said.get("model_type") or _guessed(model.path)
    if model_type is None:
        raise UserError(f"{path} names no model_type. Add one of these to a copy of it: {', '.join(FAMILIES)}.")
    family_of(model_type)
    config: PretrainedConfig = CONFIG_MAPPING[model_type].from_dict(said)
    return config


def load_tokenizer(model: Model) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model, which neither truncates nor pads by itself.

    Its `model_max_length` is never more than the model has positions for.
    """
    config = load_config(model)
    found = folder(model, TOKENIZER)
    if not any(True for pattern in TOKENIZER for _ in found.glob(pattern)):
        raise UserError(f"{found} has no tokenizer (tokenizer.json, vocab.txt, spm.model or the like). Copy it there.")
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(found, config=config, trust_remote_code=False)
    except Exception as error:  # `tokenizers` raises nothing more special
        raise UserError(f"The tokenizer in {found} cannot be read: {error}. Restore its files.") from error
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    positions = family_of(config.model_type).positions(config)
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions or tokenizer.model_max_length)
    return tokenizer


def load_model(model: Model, auto_class: Any = AutoModel, **config_overrides: Any) -> PreTrainedModel:
    """Return a model in float32 and eval mode; `auto_class` says with which head, the overrides how large it is.

    Weights that the checkpoint lacks, has too many of, or has in another shape are an error, except those of poolers
    and heads: they come new (from the global seed) where a checkpoint has none, or none that fits.
    """
    config = load_config(model)
    for name, value in config_overrides.items():
        setattr(config, name, value)
    kind = model_class(auto_class, config)
    _check_attention(kind, model)
    options: dict[str, Any] = {"attn_implementation": model.attention, "dtype": torch.float32}
    if model.random:
        with _quiet():
            return kind._from_config(config, **options).eval()
    source = weights(model)
    try:
        with _quiet():
            loaded, told = kind.from_pretrained(
                source,
                config=config,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
            )
    except (OSError, SafetensorError) as error:
        raise UserError(f"The weights in {source} cannot be read: {error}. Copy them anew.") from error
    _check_fit(loaded, told, str(source))
    remember(loaded, source, SAFE[0])
    return loaded


def model_class(auto_class: Any, config: PretrainedConfig) -> Any:
    """Return the class that `auto_class` stands for in a family; `AutoModel` is the encoder alone, also for T5."""
    if issubclass(auto_class, PreTrainedModel):
        return auto_class
    bare = family_of(config.model_type).bare
    if auto_class is AutoModel and bare is not None:
        return bare
    if type(config) not in auto_class._model_mapping:
        raise UserError(f"transformers has no {auto_class.__name__} for {config.model_type} models: choose another.")
    with _quiet():  # to look the class up is to import its module, which may complain
        return auto_class._model_mapping[type(config)]


def _guessed(path: str) -> str | None:
    """Old checkpoints (SciBERT) name no type: `transformers` goes by the model's name, and so do we."""
    return next((name for name in sorted(FAMILIES, key=len, reverse=True) if name in path.lower()), None)


def _check_attention(kind: Any, model: Model) -> None:
    known = ("eager", "sdpa") if kind._supports_sdpa else ("eager",)
    if model.attention not in known:
        raise UserError(
            f"model.attention={model.attention} is not to be had: {kind.__name__} knows {' and '.join(known)}. "
            f"Set model.attention={known[-1]}."
        )


def _check_fit(loaded: PreTrainedModel, told: dict[str, Any], source: str) -> None:
    kinds = {"missing": "missing_keys", "unexpected": "unexpected_keys", "of another shape": "mismatched_keys"}
    problems = {kind: [str(key) for key in told[name] if _matters(loaded, key)] for kind, name in kinds.items()}
    found = [f"{len(keys)} {kind} ({', '.join(keys[:3])})" for kind, keys in problems.items() if keys]
    if found:
        raise UserError(
            f"The weights in {source} do not fit its config.json: {', '.join(found)}. "
            "Take both files from the same model."
        )


def _matters(loaded: PreTrainedModel, key: Any) -> bool:
    name = key if isinstance(key, str) else key[0]
    name = name.removeprefix(f"{loaded.base_model_prefix}.")
    part = name.partition(".")[0]
    return part in dict(loaded.base_model.named_children()) and part not in FRESH and not name.endswith("position_ids")


@contextmanager
def _quiet() -> Iterator[None]:
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
