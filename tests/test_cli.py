"""What a user sees: help at once, and for a mistake one message, no traceback, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from er.__main__ import VERBS
from er.testing import tiny_checkpoint

ER = [sys.executable, "-m", "er"]


def er(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ER, *arguments], cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("encoder") / "bert")


def test_help_comes_at_once_and_names_every_verb(tmp_path: Path) -> None:
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        done = er("--help", cwd=tmp_path)
        best = min(best, time.perf_counter() - start)

    assert done.returncode == 0
    assert all(verb in done.stdout for verb in VERBS)
    assert best < 2


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_helps_and_shows_its_configuration_from_any_directory(tmp_path: Path, verb: str) -> None:
    helped, shown = er(verb, "--help", cwd=tmp_path), er(verb, "--cfg", "job", "--resolve", cwd=tmp_path)

    assert (helped.returncode, shown.returncode) == (0, 0), helped.stderr + shown.stderr
    assert "minilm_l6" in helped.stdout
    assert "cut: 0.5" in shown.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_verb_is_named(tmp_path: Path) -> None:
    done = er("trian", cwd=tmp_path)

    assert done.returncode == 2
    assert "trian" in done.stderr and "train" in done.stderr


@pytest.mark.parametrize(
    ("verb", "option", "reader"),
    [
        ("train", "space=3fa2", "er cache"),
        ("train", "bench.batches=3", "er bench"),
        ("report", "run=there", "er predict and er export"),
        ("cache", "search.loss=2", "er search-cut"),
        ("bench", "trainer.devices=2", "er train and er plan"),
    ],
)
def test_an_option_of_another_verb_is_refused(tmp_path: Path, verb: str, option: str, reader: str) -> None:
    done = er(verb, option, cwd=tmp_path)

    assert done.returncode == 1
    assert option.split("=")[0] in done.stderr and reader in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def lines(folder: Path, train: str, dev: str | None = None) -> str:
    folder.mkdir()
    good = "".join(json.dumps({"text": f"a cat {i}", "label": "ab"[i % 2]}) + "\n" for i in range(8))
    (folder / "train.jsonl").write_text(train.replace("GOOD\n", good))
    (folder / "dev.jsonl").write_text((dev or "GOOD\n").replace("GOOD\n", good))
    (folder / "test.jsonl").write_text(good)
    return str(folder)


ROW = '{"text": "x", "label": "a"}\n'
DATA = {
    "an empty file": ("", None, "train.jsonl"),
    "no JSON": ("GOOD\n{oops\n", None, "train.jsonl:9"),
    "no text": ('GOOD\n{"txt": "x", "label": "a"}\n', None, "train.jsonl:9"),
    "no label": ('GOOD\n{"text": "x"}\n', None, "train.jsonl:9"),
    "an unseen label": ("GOOD\n", 'GOOD\n{"text": "x", "label": "new"}\n', "dev.jsonl:9"),
}


@pytest.mark.parametrize("mistake", DATA)
def test_bad_data_is_named_by_file_and_line(tmp_path: Path, encoder: Path, mistake: str) -> None:
    train, dev, says = DATA[mistake]
    folder = lines(tmp_path / "data", train, dev)

    done = er("train", "task=classification", f"task.path={folder}", *where(encoder, tmp_path), cwd=tmp_path)

    refused(done, tmp_path, says)


OVERRIDES = {
    "an unknown option": (["optim.lrr=1"], "lrr"),
    "an unknown choice": (["task=nothing"], "nothing"),
    "a missing data directory": (["task=scicite", "paths.data=nowhere"], "nowhere"),
    "a missing model directory": (["model=hf", "model.path=./nowhere"], "nowhere"),
    "a cut out of range": (["cut=9"], "cut=9"),
    "nothing to gain": (["cut=0"], "cut=0"),
    "a wrong type": (["optim.epochs=many"], "many"),
}


@pytest.mark.parametrize("mistake", OVERRIDES)
def test_impossible_options_are_named(tmp_path: Path, encoder: Path, mistake: str) -> None:
    overrides, says = OVERRIDES[mistake]

    refused(er("train", *where(encoder, tmp_path), *overrides, cwd=tmp_path), tmp_path, says)


def test_a_model_without_weights_is_named(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "model")
    (path / "model.safetensors").unlink()

    refused(er("train", *where(path, tmp_path), cwd=tmp_path), tmp_path, "no weights")


@pytest.mark.parametrize(
    "crafted",
    [
        {"_attn_implementation_internal": "someone/kernel"},
        {"attn_implementation": "someone/kernel"},
        {"auto_map": {"AutoModel": "someone/code--modeling.Model"}},
    ],
)
def test_a_configuration_that_names_code_is_refused_before_anything_is_loaded(
    tmp_path: Path, crafted: dict[str, object]
) -> None:
    path = tiny_checkpoint(tmp_path / "model")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | crafted))

    refused(er("train", *where(path, tmp_path), cwd=tmp_path), tmp_path, "Nothing was loaded")


def test_a_cache_directory_that_is_a_file_is_named(tmp_path: Path, encoder: Path) -> None:
    (tmp_path / "cache").write_text("")

    done = er("train", *where(encoder, tmp_path), cwd=tmp_path)

    refused(done, tmp_path, str(tmp_path / "cache"))


def test_a_full_disk_is_named_and_nothing_half_written_stays(tmp_path: Path, encoder: Path) -> None:
    limited = f"ulimit -f 64; exec {' '.join(ER)} train {' '.join(where(encoder, tmp_path))}"

    done = subprocess.run(["bash", "-c", limited], cwd=tmp_path, capture_output=True, text=True, timeout=120)

    refused(done, tmp_path, "cache")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    assert not list((tmp_path / "cache").rglob(".tmp-*"))


def test_a_space_of_another_format_is_named(tmp_path: Path, encoder: Path) -> None:
    run = ["train", *where(encoder, tmp_path), "optim.epochs=1", "task.limit=16"]
    assert er(*run, cwd=tmp_path).returncode == 0
    (space,) = tmp_path.glob("cache/*/space.json")
    space.write_text(space.read_text().replace('"format": 1', '"format": 0'))

    done = er(*run, "on_done=overwrite", cwd=tmp_path)

    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "format" in done.stderr and str(space) in done.stderr


def where(encoder: Path, tmp_path: Path) -> list[str]:
    paths = [f"paths.cache={tmp_path}/cache", f"paths.runs={tmp_path}/runs"]
    return ["model=hf", f"model.path={encoder}", "trainer=cpu", "trainer.progress=false", *paths]


def refused(done: subprocess.CompletedProcess[str], tmp_path: Path, says: str) -> None:
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
