"""How many parameters each model of conf/model has, counted from its configuration without any weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from transformers import CONFIG_MAPPING, AutoModel, PretrainedConfig

from er.config import CONF, Model
from er.encoders import depth, load_config
from er.encoders.load import model_class
from er.errors import UserError

OPTIONS = sorted(path for path in (CONF / "model").glob("*.yaml") if path.stem != "hf")

BASE: dict[str, Any] = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
ROBERTA = {"model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert_base": {"model_type": "bert", "vocab_size": 30522, **BASE, "intermediate_size": 3072},
    "scibert": {"model_type": "bert", "vocab_size": 31090, **BASE, "intermediate_size": 3072},
    "minilm_l3_h384": {
        "model_type": "bert",
        "hidden_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "roberta_large": {
        **ROBERTA,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
    "minilm_l6_h768": {**ROBERTA, **BASE, "num_hidden_layers": 6, "intermediate_size": 3072},
    "minilm_l6_h384": {
        **ROBERTA,
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "distilbert": {"model_type": "distilbert", "vocab_size": 30522, "dim": 768, "n_layers": 6, "hidden_dim": 3072},
    "deberta_v2_xlarge": {
        "model_type": "deberta-v2",
        "vocab_size": 128100,
        "hidden_size": 1536,
        "num_hidden_layers": 24,
        "num_attention_heads": 24,
        "attention_head_size": 64,
        "intermediate_size": 6144,
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "conv_kernel_size": 3,
        "conv_act": "gelu",
    },
    "t5_large": {
        "model_type": "t5",
        "vocab_size": 32128,
        "d_model": 1024,
        "d_kv": 64,
        "num_heads": 16,
        "d_ff": 2816,
        "num_layers": 24,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    },
}
"""The configurations of the hub's models, which cannot be fetched here, as they are known."""

SIZES = {
    "bert_base": 109_482_240,
    "distilbert": 66_362_880,
    "minilm_l3": 17_389_824,
    "minilm_l3_h384": 17_389_824,
    "minilm_l6": 22_713_216,
    "mpnet_base": 109_486_464,
    "roberta_large": 355_359_744,
    "scibert": 109_918_464,
}
"""What the encoders, poolers included, are known to have to the last one."""


def config_of(path: Path) -> PretrainedConfig:
    if path.stem in CONFIGS:
        said = dict(CONFIGS[path.stem])
        config: PretrainedConfig = CONFIG_MAPPING[said.pop("model_type")](**said)
        return config
    spec = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Model), OmegaConf.load(path)))
    assert isinstance(spec, Model)
    try:
        return load_config(spec)
    except UserError as error:
        pytest.skip(str(error))


def size(config: PretrainedConfig) -> int:
    with torch.device("meta"):
        model = model_class(AutoModel, config)._from_config(config)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: path.stem)
def test_a_model_has_the_layers_the_width_and_the_parameters_that_its_file_says(path: Path) -> None:
    config = config_of(path)
    said = re.search(r"(\d+) x (\d+), ([\d.]+)M parameters", path.read_text())
    found = size(config)

    assert said, "the first line of a model's file says LAYERS x WIDTH, SIZEM parameters"
    assert (depth(config), config.hidden_size) == (int(said[1]), int(said[2]))
    digits = len(said[3].partition(".")[2])
    assert round(found / 1e6, digits) == float(said[3]), found
    assert found == SIZES.get(path.stem, found)


def test_the_papers_models_span_its_sizes() -> None:
    """From 17M to 900M, as its abstract has it; of T5 only the encoder counts, since it alone is cut."""
    sizes = {name: size(config_of(CONF / "model" / f"{name}.yaml")) for name in CONFIGS}

    assert min(sizes.values()) == 17_389_824
    assert max(sizes.values()) == pytest.approx(900e6, rel=0.02)
