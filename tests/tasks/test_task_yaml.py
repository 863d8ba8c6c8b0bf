"""Every task in conf/task is tested by existing."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from er import config
from er.results import SCORES
from er.tasks import load_task
from er.tasks.task import SPLITS
from er.testing import tiny_config, tiny_tokenizer

FILES = sorted((config.CONF / "task").glob("*.yaml"))


def loaded(file: Path) -> config.Task:
    merged = OmegaConf.merge(OmegaConf.structured(config.Task), OmegaConf.load(file))
    assert not OmegaConf.missing_keys(merged)
    task = OmegaConf.to_object(merged)
    assert isinstance(task, config.Task)
    return task


@pytest.fixture(scope="session")
def manifest(data: Path) -> dict[str, dict[str, int]]:
    """The number of examples of each split, for each folder below ER_DATA."""
    sizes: dict[str, dict[str, int]] = {}
    with (data / "MANIFEST.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            sizes.setdefault(row["task"], {})[row["split"]] = int(row["examples"])
    return sizes


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_task_is_named_after_its_file(file: Path) -> None:
    assert loaded(file).name == file.stem


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_task_says_what_it_is(file: Path) -> None:
    assert file.read_text(encoding="utf-8").startswith("# ")


WITH_DATA = [file for file in FILES if loaded(file).folder]


@pytest.mark.parametrize("file", WITH_DATA, ids=lambda file: file.stem)
def test_every_local_data_set_has_the_sizes_of_its_manifest(
    file: Path, data: Path, manifest: dict[str, dict[str, int]]
) -> None:
    task = loaded(file)
    if task.folder not in manifest:
        pytest.skip(f"{data} has no {task.folder}")

    result = load_task(task, data)

    given = {split: size for split, size in manifest[task.folder].items() if split in SPLITS}
    untouched = given.keys() - {"train"} if "derived" in result.origin.values() else given.keys()
    for split in untouched:
        assert result.origin[split] == "derived" or result.sizes[split] == given[split]
    assert sum(result.sizes.values()) == sum(given.values())
    assert result.outputs == len(result.labels) > 1


@pytest.mark.parametrize("file", WITH_DATA, ids=lambda file: file.stem)
def test_every_local_data_set_is_tokenised_and_scored(
    file: Path, data: Path, manifest: dict[str, dict[str, int]]
) -> None:
    task = loaded(file)
    if task.folder not in manifest:
        pytest.skip(f"{data} has no {task.folder}")
    result: Any = load_task(task, data)
    for split in SPLITS:
        result.examples[split] = result.examples[split][:20]
        result.sizes[split] = len(result.examples[split])

    features = result.tokenize(tiny_tokenizer(tiny_config("bert")))["test"]
    shapes = [(len(ids), result.outputs)[result.head == "sequence" :] for ids in features["input_ids"]]
    logits = [np.random.default_rng(0).normal(size=shape) for shape in shapes]

    scores = result.score("test", logits)
    assert result.metric in scores
    assert result.metric in SCORES
    assert len(json.loads(json.dumps(result.predictions("test", logits)))) == 20
    assert json.loads(json.dumps(result.details("test", logits)))
