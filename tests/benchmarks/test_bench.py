"""`er bench` times what it is asked to, with no weights, texts or tokenizer at hand; what it finds is tested slowly."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from er.benchmarks.bench import timed
from er.benchmarks.counted import multiplications
from er.benchmarks.workload import workload
from er.commands.bench import called, shared, together
from er.config import Config
from er.encoders import sharing, split
from er.speed import ratio
from er.testing import tiny
from er.training.methods import load

SHAPE = ["model=minilm_l3_h384", "model.random=true", "bench.tokens=[8,24]", "cut=1", "trainer.accelerator=cpu"]
QUICK = ["bench.batches=2", "bench.warmup=0", "optim.batch_size=2", "bench.inference_batch_size=2"]


def bench(runs: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "er", "bench", *overrides, f"paths.runs={runs}", "trainer.progress=false"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def record(runs: Path) -> dict[str, Any]:
    (path,) = (runs / "bench").glob("*.json")
    return dict(json.loads(path.read_text()))


def test_every_arm_is_timed_on_every_batch(tmp_path: Path) -> None:
    done = bench(tmp_path, *SHAPE, *QUICK, "bench.arms=[finetune,adapters,frozen,recycled,cold,ram]")

    assert done.returncode == 0, done.stderr
    said = record(tmp_path)
    assert said["task"] == "random-8-24" and (said["k"], said["depth"]) == (1, 3)
    assert said["storage"] == said["precision"] == "float32" and said["attention"] == "sdpa" and said["random"]
    for mode in ("training", "inference"):
        seconds = said[mode]["seconds"]
        assert all(set(each) >= {"read", "copy", "forward"} for each in said[mode]["phases"].values())
        assert list(seconds) == ["finetune", "adapters", "frozen", "recycled", "cold", "ram"]
        assert all(len(each) == 2 and min(each) > 0 for each in seconds.values())
        counts = said[mode]["multiplications"]
        assert counts["recycled"] == counts["ram"] == counts["cold"] < counts["frozen"] < counts["adapters"]
    assert said["memory"]["rss"] > 1e8 and "Most memory at once" in done.stdout
    assert all(f"{mode}  {arm}" in done.stdout for mode in ("training ", "inference") for arm in ("finetune", "ram"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_steps_are_timed_in_the_precision_of_the_run(
    composed: Callable[..., Config], precision: str, tmp_path: Path
) -> None:
    where = [f"paths.cache={tmp_path}", "trainer.progress=false"]
    config = composed(*SHAPE, *QUICK, *where, f"trainer.precision={precision}", "method=reduced")
    work, cpu, seen = workload(config), torch.device("cpu"), set()

    def noted(module: torch.nn.Module, _: Any, output: Any) -> None:
        if isinstance(module, torch.nn.Linear):
            seen.add(output.dtype)

    hook = torch.nn.modules.module.register_module_forward_hook(noted)
    try:
        for mode in ("training", "inference"):
            timed(config, 1, work, mode, 2, cpu, load(config, work))
    finally:
        hook.remove()

    assert seen == {getattr(torch, precision)}


def measured(**fields: Any) -> dict[str, Any]:
    """A record as `er bench` leaves it, of three rounds."""
    mode = {
        "batch_size": 2,
        "seconds": {"finetune": [3.0, 3.0, 3.0], "frozen": [2.0, 2.0, 2.0]},
        "multiplications": {"finetune": 3, "frozen": 2},
    }
    said = {"task": "t", "model": "m", "method": "reduced", "k": 1, "depth": 2, "attention": "sdpa", "random": True}
    dtypes = {"storage": "float32", "precision": "float32"}
    env = {"host": "h", "device": "cpu", "cpus": 2, "packages": {"torch": "2"}}
    return {**said, **dtypes, "env": env, "training": mode, "inference": mode, **fields}


def beside(folder: Path, *records: dict[str, Any]) -> list[str]:
    """Leave the records in the folder, and say what stands beside the first."""

    def write(path: Path, text: str) -> None:
        path.write_text(text)

    for each in records:
        write(folder / f"{called(each)}.json", json.dumps(each))
    return together(folder, records[0], write)


def test_models_timed_without_recycling_stand_side_by_side(tmp_path: Path) -> None:
    said = beside(tmp_path, measured(), measured(model="other"))

    assert "other" in (tmp_path / "speed.md").read_text() and len(said) == 3


@pytest.mark.parametrize(
    "other",
    [
        {"storage": "int8"},
        {"precision": "bfloat16"},
        {"attention": "eager"},
        {"random": False},
        {"env": {"host": "h", "device": "cpu", "cpus": 2, "packages": {"torch": "3"}}},
    ],
)
def test_what_was_timed_otherwise_stands_apart(tmp_path: Path, other: dict[str, Any]) -> None:
    assert shared(measured()) != shared(measured(**other))
    assert beside(tmp_path, measured(), measured(model="other", **other)) == []


def test_each_dtype_has_a_file_of_its_own() -> None:
    dtypes = [{"storage": "bfloat16"}, {"precision": "bfloat16"}, {"storage": "bfloat16", "precision": "bfloat16"}]

    assert called(measured()) == "t-m-reduced-1"
    assert len({called(measured(**each)) for each in [{}, *dtypes]}) == 4


@pytest.mark.parametrize("content", ['{"task": "t"', "[1]", "{}", '{"env": {}}'])
def test_what_is_no_measurement_is_left_out_and_named(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "t-broken-reduced-1.json").write_text(content)

    said = beside(tmp_path, measured(), measured(model="other"))

    assert "other" in said[1] and "t-broken-reduced-1.json" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["bench.inference_batch_size=0"], "bench.inference_batch_size=0"),
        pytest.param(["bench.tokens=[0]"], "bench.tokens=[0]", marks=pytest.mark.slow),
        pytest.param(["bench.tokens=[9,8]"], "bench.tokens=[9, 8]", marks=pytest.mark.slow),
        (["bench.tokens=[513]"], "1 to 512 tokens"),
        (["bench.arms=[frozen,warp]"], "bench.arms=warp"),
        pytest.param(["method=reduced", "bench.arms=[adapters]"], "bench.arms=adapters", marks=pytest.mark.slow),
        pytest.param(["bench.warmup=2"], "bench.warmup=2 do not count", marks=pytest.mark.slow),
        (["method=finetune"], "nothing is recycled here"),
    ],
)
def test_what_cannot_be_timed_is_refused(tmp_path: Path, overrides: list[str], said: str) -> None:
    done = bench(tmp_path, *SHAPE, *QUICK, *overrides)

    assert done.returncode == 1
    assert said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "bench").exists()


@pytest.mark.parametrize(("layers", "k"), [(2, 1), (4, 2), (4, 3)])
def test_what_the_multiplications_allow_is_what_the_layers_do(layers: int, k: int) -> None:
    """Without adapters, and but for the head, inference has as many multiplications in every layer."""
    model, inputs = tiny("bert", layers=layers).eval(), {"input_ids": torch.arange(4)[None] + 7}
    lower, upper = split(model, k)
    hidden = lower(**inputs)

    with torch.no_grad():
        whole, above = multiplications(lambda: model(**inputs)), multiplications(lambda: upper(hidden, **inputs))

    pooler = model.config.hidden_size**2
    assert (whole - pooler) * (layers - k) == (above - pooler) * layers


def test_arms_over_one_models_weights_hold_them_once_and_train_apart() -> None:
    model = tiny("bert")
    first, second = sharing(model), sharing(model)
    for weight in first.parameters():
        weight.requires_grad_(False)

    pairs = list(zip(model.parameters(), first.parameters(), second.parameters(), strict=True))
    assert all(one.data_ptr() == two.data_ptr() == three.data_ptr() for one, two, three in pairs)
    assert all(one.requires_grad and three.requires_grad and not two.requires_grad for one, two, three in pairs)


@pytest.mark.slow
def test_five_benches_on_a_busy_machine_agree(tmp_path: Path) -> None:
    """Each a process of its own; the medians of their ratios lie within 7 %."""
    shape = ["experiment=speed", "hydra.mode=RUN", "model=minilm_l6", "bench.arms=[finetune,frozen,recycled]"]
    found: dict[tuple[str, str], list[float]] = {}
    for turn in range(5):
        done = bench(tmp_path / str(turn), *shape, "bench.batches=48", "bench.warmup=3")
        assert done.returncode == 0, done.stderr
        for mode in ("training", "inference"):
            for base in ("finetune", "frozen"):
                value = ratio(record(tmp_path / str(turn))[mode]["seconds"], base, "recycled")
                found.setdefault((mode, base), []).append(value)

    assert {key: max(each) / min(each) < 1.07 for key, each in found.items()} == dict.fromkeys(found, True), found


@pytest.mark.slow
@pytest.mark.parametrize(("model", "goal"), [("minilm_l6", 1.9), ("bert_base", 2.0)])
def test_half_the_layers_recycled_halve_the_work(tmp_path: Path, model: str, goal: float) -> None:
    """Adapters cost time themselves, so for inference the arm with adapters in all layers is what halves."""
    done = bench(tmp_path, "experiment=speed", f"model={model}")

    assert done.returncode == 0, done.stderr
    said = record(tmp_path)
    assert ratio(said["training"]["seconds"], "finetune", "recycled") >= goal
    assert ratio(said["inference"]["seconds"], "adapters", "recycled") >= 1.9


@pytest.mark.slow
@pytest.mark.parametrize("model", ["minilm_l6", "bert_base"])
def test_a_step_hardly_waits_for_the_cache_even_from_a_cold_disk(tmp_path: Path, model: str) -> None:
    arms = ["method=reduced", "bench.arms=[recycled,cold,ram]", "bench.batches=20", "optim.batch_size=16"]
    done = bench(tmp_path, f"model={model}", "model.random=true", "bench.tokens=[20,100]", *arms)

    assert done.returncode == 0, done.stderr
    seconds = record(tmp_path)["training"]["seconds"]
    assert ratio(seconds, "recycled", "ram") <= 1.03
    assert ratio(seconds, "cold", "ram") <= 1.15
