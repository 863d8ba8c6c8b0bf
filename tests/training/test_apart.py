"""Texts encoded apart: the cache changes nothing, and the activation of a text is its own."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from er import encoders, tables
from er.benchmarks.bench import bench
from er.benchmarks.workload import workload
from er.cache.spaces import spaces
from er.commands import cache as command
from er.config import Config
from er.encoders import Lower, load_config, load_model
from er.encoders.families import FAMILIES as BY_TYPE
from er.errors import UserError
from er.tasks import load_task
from er.testing import FAMILIES, padded_batch, tiny, tiny_checkpoint
from er.training import apart
from er.training.data import Split, Tokens
from er.training.recycle import open_cache, recycle
from er.training.run import run, tokenized
from tests.training.test_families import both_arms, parts_of
from tests.training.test_kinds import asked, pairs

Small = Callable[..., Config]

CPU = torch.device("cpu")
DEPTH = 4
OFFSET = 17

PLACEABLE = [family for family in FAMILIES if BY_TYPE[family.partition("+")[0]].placeable]
RELATIVE = ["deberta-v2", "deberta-v2+conv", "modernbert", "t5", "t5+gated"]
ABSOLUTE = [family for family in PLACEABLE if family not in RELATIVE]


def joined(config: Any, firsts: list[int], seconds: list[int], offset: int = OFFSET) -> Tokens:
    """Return pairs of texts of these lengths, as a tokenizer of this model would give them."""
    lengths = [one + two for one, two in zip(firsts, seconds, strict=True)]
    batch = padded_batch(config, lengths)
    columns = {
        name: [row[:length].numpy() for row, length in zip(column, lengths, strict=True)]
        for name, column in batch.items()
        if name != "attention_mask"
    }
    if "token_type_ids" in columns:
        columns["token_type_ids"] = [np.repeat([0, 1], [one, two]) for one, two in zip(firsts, seconds, strict=True)]
    first = encoders.first_position(config)
    starts = None if first is None else np.full(len(lengths), offset)
    return Tokens(columns, int(config.pad_token_id), np.array(firsts), starts, first or 0)


def live(model: Any, k: int, tokens: Tokens) -> torch.Tensor:
    """Return the activations of all pairs, computed now."""
    batch = Split(tokens, torch.zeros(len(tokens))).batch(list(range(len(tokens))))
    return apart.lowered(Lower(model, k), batch)


@pytest.fixture
def configured(small: Small, tmp_path: Path) -> Callable[..., Config]:
    """Compose a run of a tiny model of a family."""

    def compose(family: str, *overrides: str) -> Config:
        path = tiny_checkpoint(tmp_path / family, family, "sequence", layers=DEPTH)
        return small(f"model.path={path}", "model.attention=eager", "cut=2", "method=reduced", *overrides)

    return compose


@pytest.mark.parametrize("family", PLACEABLE)
def test_from_the_cache_as_without_it(configured: Callable[..., Config], family: str) -> None:
    """The same activations, the same losses; in the shapes that the cache was built in, to the bit."""
    config = configured(family)
    random = np.random.default_rng(0)
    firsts, seconds = (random.integers(1, 9, 40).tolist() for _ in range(2))
    split = Split(joined(load_model(config.model).config, firsts, seconds), torch.arange(40) % 2)
    parts, through = parts_of(config), replace(split)
    assert parts.lower is not None
    recycle(open_cache(config, parts.lower), parts.lower, {"train": through}, config, CPU)

    rows = [3, 1, 7]
    cached, computed = through.batch(rows), split.batch(rows)
    assert "parts" not in cached and "hidden" not in computed
    torch.testing.assert_close(cached["hidden"], apart.lowered(parts.lower, computed), atol=1e-5, rtol=0)
    alone = configured(family, "cache.batch_tokens=1", f"paths.cache={config.paths.cache}/alone")
    recycle(open_cache(alone, parts.lower), parts.lower, {"train": through}, alone, CPU)
    assert torch.equal(through.batch([5])["hidden"], apart.lowered(parts.lower, split.batch([5])))

    expected, _, losses, _ = both_arms(config, split, optimize=torch.optim.SGD, lr=0.05)
    np.testing.assert_allclose(losses, expected, atol=1e-5, rtol=0)
    assert len(set(expected)) == len(expected)


@pytest.mark.parametrize("family", PLACEABLE)
def test_a_second_text_is_one_entry_whatever_the_first(configured: Callable[..., Config], family: str) -> None:
    config = configured(family)
    model = load_model(config.model)
    tokens = joined(model.config, [5] * 6, [7] * 6)
    for column in tokens.columns.values():
        for row in column[1:]:
            row[5:] = column[0][5:]

    hidden = live(model, 2, tokens)
    mixed = Lower(model, 2)(**tokens.batch(np.arange(6)))

    assert torch.equal(hidden[1:, 5:], hidden[:1, 5:].expand(5, -1, -1))
    assert not torch.allclose(mixed[1, 5:], mixed[0, 5:], atol=1e-3), "encoded jointly, it depends on the first"
    assert [len(set(keys.tolist())) for keys in tokens.keys().T] == [6, 1]
    split = Split(tokens, torch.zeros(6))
    built = recycle(open_cache(config, Lower(model, 2)), Lower(model, 2), {"train": split}, config, CPU)
    assert (built.hits + built.misses, built.misses) == (7, 7)


@pytest.mark.parametrize("family", RELATIVE)
def test_apart_and_joint_are_one_below_the_first_layer_where_positions_are_relative(family: str) -> None:
    model = tiny(family)
    tokens = joined(model.config, [4, 6, 1], [5, 2, 9])

    assert tokens.starts is None
    assert torch.equal(live(model, 0, tokens), masked(Lower(model, 0), tokens))
    assert not torch.allclose(live(model, 1, tokens), masked(Lower(model, 1), tokens), atol=1e-3)


@pytest.mark.parametrize("family", ABSOLUTE)
def test_apart_and_joint_differ_below_the_first_layer_by_positions_alone(family: str) -> None:
    model = tiny(family)
    here, elsewhere = (joined(model.config, [6] * 3, [5, 2, 9], offset) for offset in (6, OFFSET))
    joint = masked(Lower(model, 0), here)

    torch.testing.assert_close(live(model, 0, here), joint, atol=1e-6, rtol=0)
    moved = live(model, 0, elsewhere)
    torch.testing.assert_close(moved[:, :6], joint[:, :6], atol=1e-6, rtol=0)
    assert not torch.allclose(moved[:, 6:8], joint[:, 6:8], atol=1e-3)
    assert (here.keys()[:, 0] == elsewhere.keys()[:, 0]).all()
    assert (here.keys()[:, 1] != elsewhere.keys()[:, 1]).all()


def masked(lower: Lower, tokens: Tokens) -> torch.Tensor:
    """Return the activations of pairs encoded jointly, zero where they are padded."""
    inputs = tokens.batch(np.arange(len(tokens)))
    hidden: torch.Tensor = lower(**inputs)
    return hidden * inputs["attention_mask"][..., None]


@pytest.mark.parametrize("family", ABSOLUTE)
def test_the_first_text_alone_is_an_entry_like_any_other(family: str) -> None:
    """What is asked is shared with runs that know of no second text: it begins at the first position of all."""
    model = tiny(family)
    first, _ = joined(model.config, [4, 6, 2], [5, 2, 9]).parts()
    plain = Tokens(first.columns, first.padding["input_ids"])

    assert (first.keys() == plain.keys()).all()
    assert torch.equal(masked(Lower(model, 2), first), masked(Lower(model, 2), plain))


@pytest.mark.parametrize("family", PLACEABLE)
def test_the_last_position_is_never_passed(configured: Callable[..., Config], tmp_path: Path, family: str) -> None:
    """With a long first text beside short ones, and an offset near the end, even padding has a position."""
    folder = written(tmp_path / "asked", [row | {"question": "which animal may it be"} for row in asked()])
    options = ["task=extractive_qa", f"task.path={folder}", "task.encode=separate", "task.offset=50"]
    config = configured(family, *options, "cache.batch_tokens=9999")
    splits = tokenized(config, load_task(config.task, None))
    model, tokens = load_model(config.model), apart.inputs(splits)

    inputs = tokens.batch(np.arange(len(tokens)))
    assert Lower(model, 1)(**inputs).isfinite().all()
    assert ("position_ids" in inputs) == (family in ABSOLUTE)
    if family in ABSOLUTE:
        assert inputs["position_ids"].max() == model.config.max_position_embeddings - 1


def test_models_that_take_no_positions_are_refused(configured: Callable[..., Config], words: Path) -> None:
    config = configured("distilbert", "task=pair_classification", f"task.path={words}", "task.encode=separate")

    with pytest.raises(UserError, match=r"distilbert.* take no position ids.*bert, deberta-v2, electra, modernbert"):
        tokenized(config, None)  # type: ignore[arg-type]
    assert encoders.first_position(load_config(configured("roberta").model)) == 2


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    for split in ("train", "dev", "test"):
        each = [row | ({"id": f"{split}{row['id']}"} if "id" in row else {}) for row in rows]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in each))
    return folder


@pytest.fixture
def own(small: Small, tmp_path: Path) -> Callable[..., Config]:
    """Compose a run on pairs, or on questions, encoded apart."""

    def compose(kind: str, *overrides: str) -> Config:
        folder = written(tmp_path / kind, {"pair_classification": pairs, "extractive_qa": asked}[kind]())
        options = [f"task={kind}", f"task.path={folder}", "task.max_length=40", "task.stride=8", "method=reduced"]
        return small(*options, "task.encode=separate", *overrides)

    return compose


KINDS = ["pair_classification", "extractive_qa"]


@pytest.mark.parametrize("head", ["linear", "stock"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_none_the_worse_for_the_cache(
    own: Callable[..., Config], kind: str, head: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        on = run(own(kind, f"method.head={head}"))
    off = run(own(kind, f"method.head={head}", "cache.mode=off"))

    assert on.metrics == pytest.approx(off.metrics, abs=1e-4)
    assert off.cache is None and on.cache is not None
    saved = {"pair_classification": "8 + 8 entries", "extractive_qa": "1 + "}
    assert f"separate encoding: {saved[kind]}" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_finds_what_the_cache_was_filled_with(
    own: Callable[..., Config], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        command.build(own(kind, "cut=[1,2]"))
    result = run(own(kind, "cut=1"))

    assert "separate encoding" in caplog.text
    assert result.cache is not None
    assert result.cache["misses"] == 0
    assert {space.entries for space in spaces(Path(own(kind).paths.cache))} == {result.cache["hits"]}


def test_a_separate_run_is_another_run(own: Callable[..., Config]) -> None:
    joint, separate, moved = (
        run(own("pair_classification", *options)) for options in (["task.encode=joint"], [], ["task.offset=12"])
    )

    assert len({joint.run_id, separate.run_id, moved.run_id}) == 3
    assert [tables.row(each)["method"] for each in (joint, separate, moved)] == ["reduced", *["reduced, separate"] * 2]
    assert not {"encode", "offset"} & joint.identity["task"].keys()
    assert joint.metrics["test/loss"] != separate.metrics["test/loss"] != moved.metrics["test/loss"]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["method=finetune"], r"separate does not go with method=finetune.*Choose reduced"),
        (["method=adapters"], r"separate does not go with method=adapters"),
        (["method=cross_model"], r"separate does not go with method=cross_model"),
        (["task.offset=0"], r"task.offset=0: must be at least 1"),
        (["task.kind=tagging"], r"is one text"),
        (["task.kind=classification", "task.text=[sentence1]"], r"is one text"),
    ],
)
def test_what_cannot_be_encoded_apart_is_refused(own: Callable[..., Config], overrides: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        own("pair_classification", *overrides)


def test_texts_that_would_never_meet_are_refused(own: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match=r"cut at layer 4 of 4: no layer is left"):
        run(own("pair_classification", "method=probe"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_bench_times_it(own: Callable[..., Config], kind: str) -> None:
    config = own(kind, "bench.batches=2", "bench.warmup=0")

    record = bench(config, 2, workload(config), CPU)

    assert set(record["training"]["seconds"]) == {"finetune", "frozen", "recycled", "ram"}
    assert record["build"]["bytes"] > 0
