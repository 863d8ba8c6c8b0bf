"""A task of every kind trains, is scored, and is none the worse for the cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from er.results import Result
from er.statistics import scores

Train = Callable[..., Result]

ANIMALS, TOOLS = ["cat", "dog", "horse", "cow"], ["hammer", "saw", "drill", "file"]


def pairs() -> list[dict[str, Any]]:
    """Is the second of them a tool?"""
    words = [*ANIMALS, *TOOLS]
    return [
        {"sentence1": f"a {one}", "sentence2": f"the {other}", "label": int(other in TOOLS)}
        for one in words
        for other in words
    ]


def tagged() -> list[dict[str, Any]]:
    """Which words are animals and which are tools? Some sentences are longer than a window."""
    rows = []
    for i, (animal, tool) in enumerate((a, t) for a in ANIMALS for t in TOOLS):
        tokens = ["the", "old", animal, *["and", "on"] * (i * 2), "a", tool, "."]
        tags = ["O", "B-animal", "I-animal", *["O", "O"] * (i * 2), "O", "B-tool", "O"]
        rows.append({"tokens": tokens, "tags": tags})
    return rows


def asked() -> list[dict[str, Any]]:
    """Which animal is it? Some passages are longer than a window."""
    return [
        {
            "id": str(i),
            "question": "which animal",
            "context": f"{'so it is on ' * (i % 5)}a {tool} and the {animal}, no more",
            "answers": [{"text": animal, "answer_start": len("so it is on ") * (i % 5) + len(f"a {tool} and the ")}],
        }
        for i, (animal, tool) in enumerate((a, t) for a in ANIMALS for t in TOOLS)
    ]


KINDS = {
    "pair_classification": (pairs, ["task.max_length=32"], 0.7),
    "tagging": (tagged, ["task.max_length=32", "task.stride=8"], 0.3),
    "extractive_qa": (asked, ["task.max_length=40", "task.stride=8"], 0.3),
}


@pytest.fixture
def own(tmp_path: Path, train: Train) -> Train:
    """Write a task of a kind, the same examples in each split, and train it."""

    def train_own(kind: str, *overrides: str) -> Result:
        make, options, _ = KINDS[kind]
        folder = tmp_path / kind
        folder.mkdir(exist_ok=True)
        for split, repeats in {"train": 4, "dev": 1, "test": 1}.items():
            rows = [row | ({"id": f"{row['id']}-{i}"} if "id" in row else {}) for i in range(repeats) for row in make()]
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return train(f"task={kind}", f"task.path={folder}", *options, *overrides)

    return train_own


def kept(result: Result, tmp_path: Path) -> Path:
    (path,) = tmp_path.rglob(f"*-{result.run_id}")
    return path


@pytest.mark.parametrize("head", ["linear", "stock"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_changes_nothing_but_the_time(own: Train, tmp_path: Path, kind: str, head: str) -> None:
    on = own(kind, "method=reduced", f"method.head={head}", "cache.mode=on")
    off = own(kind, "method=reduced", f"method.head={head}", "cache.mode=off")

    assert on.metrics == pytest.approx(off.metrics, abs=1e-4)
    cached, recomputed = (load_file(kept(result, tmp_path) / "weights.safetensors") for result in (on, off))
    assert cached.keys() == recomputed.keys()
    for name, weight in cached.items():
        if weight.ndim == 1:
            continue  # the gradient of some biases is 0 but for rounding, and Adam makes whole steps of that
        torch.testing.assert_close(weight, recomputed[name], atol=1e-4, rtol=0)


def test_padding_has_no_part_in_an_answer(own: Train) -> None:
    alone, together = (
        own("extractive_qa", f"optim.batch_size={size}", "optim.epochs=1", "optim.lr=1e-9") for size in (1, 8)
    )

    assert alone.metrics["dev/loss"] == pytest.approx(together.metrics["dev/loss"], abs=1e-4)


METRIC = {"pair_classification": "accuracy", "tagging": "entity_f1", "extractive_qa": "f1"}


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_leaves_what_its_score_came_from(own: Train, tmp_path: Path, kind: str) -> None:
    result = own(kind, "method=finetune", "optim.epochs=15", "optim.lr=1e-3", "optim.warmup=0")

    score = result.metrics[f"test/{METRIC[kind]}"]
    assert score > KINDS[kind][2]
    folder = kept(result, tmp_path)
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    parts = scores(rows)
    summed = parts.sum(axis=0)
    assert score == pytest.approx(parts.mean() if parts.ndim == 1 else summed[0] / summed[1], abs=1e-6)
    assert json.loads((folder / "details.json").read_text())
