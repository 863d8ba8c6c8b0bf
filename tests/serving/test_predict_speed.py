"""How fast known texts are answered, against the exported model that is run plainly, in batches of the same shapes.

Both arms read the same file of JSON lines, tokenise it, sort it by length, compute, and write labels and probabilities
as JSON lines; models are loaded before. They take turns in one process, and a ratio is the median over the turns.
`pytest -m slow -s tests/serving/test_predict_speed.py` prints the table; `limit` is what the layers alone would allow,
and CPU time is what other programs on the machine disturb least.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from tabulate import tabulate
from torch.nn.utils.rnn import pad_sequence

from er import encoders
from er.commands.predict import rows_of
from er.config import Config
from er.errors import UserError
from er.serving.export import checkpoint, with_adapter
from er.serving.predict import Predictor
from er.serving.trained import Trained, load_run
from er.tasks import readers
from er.training.run import run

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("ER_SPEED_ROUNDS", "5"))
BATCH = 64
SIZES = {"minilm_l6": 512, "mpnet_base": 128}
"""Texts a turn."""

CASES = [
    ("minilm_l6", "reduced", 3, 1, 1.9),
    ("minilm_l6", "reduced_adapters", 3, 1, None),
    ("minilm_l6", "reduced", 3, 3, 1.9),
    ("minilm_l6", "reduced", 5, 3, 3.0),
    ("mpnet_base", "reduced", 6, 1, 1.9),
    ("mpnet_base", "reduced_adapters", 6, 1, None),
    ("mpnet_base", "reduced", 6, 3, 1.9),
    ("mpnet_base", "reduced", 9, 3, 3.0),
]
"""Model, method, cut, tasks at once, and the ratio to reach.

Three tasks have three upper parts to run, so no number of them goes beyond N / (N - k); with adapters less, since the
layers that are spared have none.
"""


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def all_threads(_one_thread: None) -> None:
    torch.set_num_threads(os.cpu_count() or 1)


@pytest.fixture
def texts(real_data: Path, tmp_path: Path) -> Callable[[int], Path]:
    """Write texts of SciCite that no run has seen."""
    found = [row["text"] for row in lines(real_data / "sci-cite" / "train.txt")]

    def write(count: int) -> Path:
        path = tmp_path / "new.jsonl"
        path.write_text("".join(json.dumps({"text": each}) + "\n" for each in found[100 : 100 + count]))
        return path

    return write


@pytest.fixture
def compose(composed: Callable[..., Config], real_data: Path, tmp_path: Path) -> Callable[..., Config]:
    """Compose a run of a moment: how fast it answers does not depend on how much it knows."""
    rows = lines(real_data / "sci-cite" / "train.txt")[:48]
    for split, part in {"train": rows[:32], "dev": rows[32:40], "test": rows[40:]}.items():
        few = tmp_path / "few"
        few.mkdir(exist_ok=True)
        (few / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))

    def compose_few(*overrides: str) -> Config:
        return composed(
            "task=classification",
            f"task.path={tmp_path}/few",
            "task.unseen_label=wrong",
            f"paths.cache={tmp_path}/cache",
            f"paths.runs={tmp_path}/runs",
            "trainer=cpu",
            "trainer.progress=false",
            "optim.epochs=1",
            *overrides,
        )

    return compose_few


@pytest.mark.parametrize(("model", "method", "k", "tasks", "wanted"), CASES)
def test_known_texts_are_answered_faster_than_by_the_exported_model(
    compose: Callable[..., Config],
    texts: Callable[[int], Path],
    tmp_path: Path,
    all_threads: None,
    model: str,
    method: str,
    k: int,
    tasks: int,
    wanted: float | None,
) -> None:
    options = [f"model={model}", f"method={method}", f"cut={k}"]
    configs = [compose(*options, f"seed={seed}") for seed in range(tasks)]
    try:
        depth = encoders.load_config(configs[0].model).num_hidden_layers
    except UserError as error:
        pytest.skip(str(error))
    for config in configs:
        run(config)
    trained = [load_run(folder) for folder in sorted(tmp_path.glob(f"runs/*/*/{method}-*"))]
    new = texts(SIZES[model])

    predictor = Predictor(trained, compose(*options, f"predict.batch_size={BATCH}"))
    arms = {
        "er predict": partial(recycled, predictor, new, tmp_path / "ours.jsonl"),
        "plainly": partial(plainly, [plain(each) for each in trained], new, tmp_path / "theirs.jsonl"),
    }
    for arm in arms.values():
        arm()  # fills the cache, and warms up
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    work: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(ROUNDS):
        for name in sorted(arms, reverse=bool(turn % 2)):
            started, worked = time.perf_counter(), time.process_time()
            arms[name]()
            seconds[name].append(time.perf_counter() - started)
            work[name].append(time.process_time() - worked)

    reached = ratio(seconds)
    row = {"model": model, "method": method, "k": k, "tasks at once": tasks}
    row |= {f"{name}, ms a text": 1000 * median(each) / SIZES[model] for name, each in seconds.items()}
    row |= {
        "plainly / er predict": reached,
        "in CPU time": ratio(work),
        "limit": depth / (depth - k),
        "wanted": wanted or "",
    }
    print(f"\n{tabulate([row], headers='keys', floatfmt='.2f')}")  # noqa: T201
    agree(tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl")
    assert wanted is None or reached >= wanted


def ratio(seconds: dict[str, list[float]]) -> float:
    return float(median(theirs / ours for ours, theirs in zip(*seconds.values(), strict=True)))


def recycled(predictor: Predictor, source: Path, target: Path) -> None:
    known = readers(predictor.runs[0].config.task)
    predictor.counts.clear()
    with target.open("w") as out:
        out.writelines(json.dumps(answer) + "\n" for answer in predictor.answers(rows_of([source], known)))


Plain = tuple[Any, Any, int]
"""A model, its tokenizer, and the tokens that a text may have."""


def plain(trained: Trained) -> Plain:
    exported = with_adapter(trained) if trained.config.method.adapter is not None else checkpoint(trained)
    tokenizer = encoders.load_tokenizer(trained.config.model)
    return exported, tokenizer, min(trained.config.task.max_length, tokenizer.model_max_length)


@torch.no_grad()
def plainly(models: list[Plain], source: Path, target: Path) -> None:
    """Run one model after the other, as three programs would."""
    said = []
    for model, tokenizer, length in models:
        texts = [row["text"] for row in lines(source)]
        ids = tokenizer(texts, truncation=True, max_length=length, padding=False)["input_ids"]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        rows: list[Any] = [None] * len(ids)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            batch = pad_sequence([torch.tensor(ids[i]) for i in chosen], True, tokenizer.pad_token_id)
            lengths = torch.tensor([[len(ids[i])] for i in chosen])
            mask = (torch.arange(batch.shape[1]) < lengths).long()
            for i, row in zip(chosen, model(batch, mask).logits.softmax(dim=-1).tolist(), strict=True):
                rows[i] = row
        said.append(rows)
    names = models[0][0].config.id2label
    with target.open("w") as out:
        for each in zip(*said, strict=True):
            answers = [{"probabilities": {names[i]: p for i, p in enumerate(row)}} for row in each]
            out.write(json.dumps(answers) + "\n")


def agree(ours: Path, theirs: Path) -> None:
    """Both arms answered the same."""
    for said, expected in zip(lines(ours), lines(theirs), strict=True):
        said.pop("index")
        answers = [said] if "probabilities" in said else list(said.values())
        for answer, right in zip(answers, expected, strict=True):
            found = list(answer["probabilities"].values())
            assert found == pytest.approx(list(right["probabilities"].values()), abs=1e-4)
