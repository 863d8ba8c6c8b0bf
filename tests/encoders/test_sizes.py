"""How many parameters each model of conf/model has, counted from its configuration without any weights."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModel, PretrainedConfig

from er.config import CONF, Model
from er.encoders import depth, load_config
from er.encoders.load import model_class
from er.errors import UserError

OPTIONS = sorted(path for path in (CONF / "model").glob("*.yaml") if path.stem != "hf")
HUB = [path.stem for path in OPTIONS if "shape" in OmegaConf.load(path)]

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
    spec = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Model), OmegaConf.load(path), {"random": True}))
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
    sizes = {name: size(config_of(CONF / "model" / f"{name}.yaml")) for name in HUB}

    assert min(sizes.values()) == 17_389_824
    assert max(sizes.values()) == pytest.approx(900e6, rel=0.02)
