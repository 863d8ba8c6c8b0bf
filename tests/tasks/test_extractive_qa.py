from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torchmetrics.text import SQuAD
from transformers import PreTrainedTokenizerFast

from er import choices, config
from er.errors import UserError
from er.tasks import SPLITS, load_task
from er.tasks.extractive_qa import ExtractiveQA, agreement
from er.tasks.spans import NOWHERE, best_span, span_of

Question = dict[str, Any]


def question(passage: str, *texts: str, starts: list[int] | None = None, name: str = "q") -> Question:
    starts = [passage.find(text) for text in texts] if starts is None else starts
    return {
        "id": name,
        "question": "which one",
        "context": passage,
        "answers": {"text": list(texts), "answer_start": starts},
    }


QUESTIONS = [
    question("ab cd ef gh", "cd ef", name="0"),
    question("x y. z, a", "z", "x", name="1"),
    question("ab cd ef gh", "ab", name="2"),
]


def own(**fields: Any) -> config.Task:
    options: dict[str, Any] = {"max_length": 32, "stride": 4, "text": ["question", "context"], "label": "answers"}
    return config.Task(**{"name": "own", "kind": choices.Kind.extractive_qa, **options, **fields})


def in_squad(rows: list[Question]) -> str:
    def one(row: Question) -> dict[str, Any]:
        texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
        pairs = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
        asked = {"id": row["id"], "question": row["question"], "answers": pairs}
        return {"paragraphs": [{"context": row["context"], "qas": [asked]}]}

    return json.dumps({"version": "1.1", "data": [one(row) for row in rows]})


def written(suffix: str, rows: list[Question]) -> bytes:
    if suffix == ".parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        return bytes(sink.getvalue())
    return (in_squad(rows) if suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)).encode()


SUFFIXES = [".json", ".jsonl", ".parquet"]


def loaded(data: bytes, suffix: str = ".jsonl", **fields: Any) -> ExtractiveQA:
    with tempfile.TemporaryDirectory() as directory:
        for split in SPLITS:
            Path(directory, f"{split}{suffix}").write_bytes(data)
        task = load_task(own(path=directory, **fields), None)
        assert isinstance(task, ExtractiveQA)
        return task


def made(rows: list[Question], **fields: Any) -> ExtractiveQA:
    return loaded(written(".jsonl", rows), **fields)


def pointing_at(labels: list[list[int]], lengths: list[int]) -> list[np.ndarray]:
    """Logits of a model that says what it was taught."""
    logits = [np.zeros((length, 2), dtype=np.float32) for length in lengths]
    for each, (start, end) in zip(logits, labels, strict=True):
        each[start, 0] = each[end, 1] = 5
    return logits


def taught(task: ExtractiveQA, tokenizer: PreTrainedTokenizerFast, split: str = "test") -> list[np.ndarray]:
    features = task.tokenize(tokenizer)[split]
    return pointing_at(features["labels"][:], [len(ids) for ids in features["input_ids"]])


class TestFiles:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_every_format_holds_the_same(self, suffix: str) -> None:
        task = loaded(written(suffix, QUESTIONS), suffix)

        for example, row in zip(task.examples["train"], QUESTIONS, strict=True):
            assert (example.id, example.question, example.passage) == (row["id"], row["question"], row["context"])
            assert list(example.answers.texts) == row["answers"]["text"]
            assert [example.passage[a:b] for a, b in example.answers.spans] == row["answers"]["text"]

    @pytest.mark.parametrize(
        ("answers", "texts", "spans"),
        [
            ("CD", ("CD",), ["cd"]),
            (["gh", "AB"], ("gh", "AB"), ["ab", "gh"]),
            ({"value": "cd", "aliases": ["cd", "ef"]}, ("cd", "ef"), ["cd", "ef"]),
            ([{"text": "ef", "answer_start": 6}, {"text": "ab", "answer_start": 0}], ("ef", "ab"), ["ef", "ab"]),
            ([{"text": "ef"}], ("ef",), ["ef"]),
            ({"text": "gh", "answer_start": 9}, ("gh",), ["gh"]),
        ],
    )
    def test_answers_have_many_forms(self, answers: Any, texts: tuple[str, ...], spans: list[str]) -> None:
        (example,) = made([QUESTIONS[0] | {"answers": answers}]).examples["test"]

        assert example.answers.texts == texts
        assert [example.passage[a:b] for a, b in example.answers.spans] == spans

    def test_only_whole_words_are_found(self) -> None:
        rows = [question("abc ab, dab", "ab") | {"answers": ["ab"]}]

        assert made(rows).examples["test"][0].answers.spans == ((4, 6),)

    def test_a_passage_may_be_many_documents(self) -> None:
        row = {
            "question": "who",
            "question_id": "t1",
            "search_results": {"search_context": ["one", "two"], "title": ["no", "no"]},
            "entity_pages": [{"wiki_context": "three", "title": "no"}],
            "answer": {"value": "Two", "aliases": ["Two", "2"]},
        }

        (example,) = made([row], text=["question", "search_results", "entity_pages"], label="answer").examples["test"]

        assert (example.id, example.passage) == ("t1", "one\ntwo\nthree")
        assert example.answers.spans == ((4, 7),)

    def test_an_offset_that_is_wrong_is_mended(self, caplog: pytest.LogCaptureFixture) -> None:
        rows = [question("ab cd ab ef ab", " ab ", starts=[10])]

        task = made(rows)

        assert task.examples["test"][0].answers.spans == ((12, 14),)
        assert "1 of 1 train answers stand elsewhere" in caplog.text

    def test_an_answer_that_is_nowhere_is_dropped_and_counted(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, logger="er")
        lost = question("ab cd", "xx", starts=[0], name="lost")
        rows = [question("ab cd", "ab", name=str(i)) for i in range(20)]

        task = made([*rows, lost])

        assert task.sizes == {"train": 20, "dev": 21, "test": 21}
        assert "1 stand nowhere" in caplog.text
        assert "1 of 21 training questions left out" in caplog.text

    def test_a_passage_of_other_answers_is_refused(self, tmp_path: Path) -> None:
        lost = question("ab cd", "xx", starts=[0], name="lost")
        (tmp_path / "train.json").write_text(in_squad([*QUESTIONS, lost]))

        with pytest.raises(UserError, match=r"train\.json, data\[3\].*qas\[0\]: 'xx' is not in the passage.*1 of 5"):
            load_task(own(path=str(tmp_path)), None)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"answers": {"text": [], "answer_start": []}}, "has no answer"),
            ({"answers": {"text": ["ab"], "answer_start": []}}, "1 answers but 0 offsets"),
            ({"answers": {"text": ["ab"], "answer_start": ["0"]}}, "offset should be a whole number, but is '0'"),
            ({"answers": {"text": [" "], "answer_start": [0]}}, "answer should be text, but is blank"),
            ({"answers": None}, "an answer should be text, but is None"),
            ({"answers": ["\ud800"]}, "half a character"),
            ({"context": " "}, "passage.*is blank"),
            ({"context": 3}, "'context' should hold text, but is 3"),
            ({"question": ""}, "'question' should hold text, but is blank"),
            ({"answers": {"text": ["ab"], "answer_start": [True]}}, "offset should be a whole number, but is True"),
            ({"context": {"x": 1}}, "'context' should hold text, but is a dict"),
            ({"id": None}, "there is no id in column 'id'"),
            ({"id": "0"}, r"the id '0' is that of .*train\.jsonl:1, too"),
        ],
    )
    def test_a_bad_row_is_named(self, change: dict[str, Any], message: str, tmp_path: Path) -> None:
        rows = [QUESTIONS[0], QUESTIONS[1] | change]
        (tmp_path / "train.jsonl").write_bytes(written(".jsonl", rows))

        with pytest.raises(UserError, match=rf"train\.jsonl:2: .*{message}"):
            load_task(own(path=str(tmp_path)), None)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ({"data": 1}, "data is no list"),
            ({"data": [1]}, r"data\[0\] has no 'paragraphs'"),
            ({"data": [{"paragraphs": [{"qas": []}]}]}, r"paragraphs\[0\] has no 'context'"),
            ({"data": [{"paragraphs": [{"context": "a", "qas": [{}]}]}]}, r"qas\[0\] has no 'question'"),
            ({"data": []}, "holds no examples"),
            ({"version": 1}, "no column 'context'"),
        ],
    )
    def test_json_that_is_not_squads_is_named(self, data: Any, message: str, tmp_path: Path) -> None:
        (tmp_path / "train.json").write_text(json.dumps(data))

        with pytest.raises(UserError, match=message):
            load_task(own(path=str(tmp_path)), None)

    def test_questions_on_one_passage_are_never_torn_apart(self) -> None:
        rows = [question(f"ab cd {i // 5}", "cd", name=str(i)) for i in range(500)]
        with tempfile.TemporaryDirectory() as directory:
            Path(directory, "dev.jsonl").write_bytes(written(".jsonl", rows))
            task = load_task(own(path=directory), None)
            assert isinstance(task, ExtractiveQA)

        passages = [{example.passage for example in task.examples[split]} for split in SPLITS]
        assert sum(map(len, passages)) == len(set.union(*passages)) == 100
        assert task.origin == dict.fromkeys(SPLITS, "derived")


words = st.text("abc .,'", min_size=1, max_size=40).filter(lambda text: bool(text.strip()))


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_was_written_is_read(suffix: str, data: st.DataObject) -> None:
    passage = data.draw(st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: bool(text.strip())))
    start = data.draw(st.integers(0, len(passage) - 1))
    text = passage[start : data.draw(st.integers(start + 1, len(passage)))]
    if not text.strip():
        return
    (example,) = loaded(written(suffix, [question(passage, text, starts=[start])]), suffix).examples["test"]

    ((first, last),) = example.answers.spans
    assert example.passage == passage
    assert passage[first:last] == text.strip()
    assert first - start == len(text) - len(text.lstrip())
    assert not example.answers.moved


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_bytes_give_a_task_or_a_user_error(suffix: str, data: st.DataObject) -> None:
    sound = written(suffix, QUESTIONS)
    place, byte = data.draw(st.tuples(st.integers(0, len(sound) - 1), st.binary(min_size=1, max_size=3)))
    content = data.draw(st.one_of(st.binary(), st.just(sound[:place] + byte + sound[place + 1 :])))
    try:
        task = loaded(content, suffix)
    except UserError as error:
        assert str(error)
    else:
        assert task.sizes["train"] > 0


class TestTokens:
    def test_the_question_goes_first_and_the_answer_is_labelled(self, tokenizer: PreTrainedTokenizerFast) -> None:
        feature = made(QUESTIONS[:1], max_length=64).tokenize(tokenizer)["test"][0]

        assert feature["input_ids"] == tokenizer("which one", "ab cd ef gh")["input_ids"]
        assert feature["token_type_ids"] == tokenizer("which one", "ab cd ef gh")["token_type_ids"]
        start, end = feature["labels"]
        assert tokenizer.decode(feature["input_ids"][start : end + 1]) == "cd ef"

    @settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(words, st.data(), st.integers(16, 40), st.integers(0, 12))
    def test_the_label_is_the_answer_wherever_a_window_shows_it(
        self, tokenizer: PreTrainedTokenizerFast, passage: str, data: st.DataObject, length: int, stride: int
    ) -> None:
        start = data.draw(st.integers(0, len(passage) - 1))
        text = passage[start : start + 4]
        if not text.strip():
            return
        task = made([question(passage, text, starts=[start])], max_length=length, stride=stride)

        features = task.tokenize(tokenizer)["test"]

        assert max(map(len, features["input_ids"])) <= length
        reached = [labels for labels in features["labels"][:] if labels != [0, 0]]
        assert reached or stride < 4
        if reached:
            (record,) = task.predictions("test", taught(task, tokenizer))
            assert record["prediction"] == text.strip()
            assert record["em"] == 1

    def test_a_window_without_the_answer_points_at_its_first_token(self, tokenizer: PreTrainedTokenizerFast) -> None:
        task = made([question("ab " * 20 + "cd", "cd")])

        labels = task.tokenize(tokenizer)["test"]["labels"][:]

        assert len(labels) > 1
        assert labels[:-1] == [[0, 0]] * (len(labels) - 1)
        assert labels[-1][0] > 0

    def test_windows_may_be_limited(self, tokenizer: PreTrainedTokenizerFast) -> None:
        task = made([question("ab " * 50 + "cd", "ab", name=str(i)) for i in range(3)], max_windows=2)

        assert len(task.tokenize(tokenizer)["test"]) == 6
        assert [row["index"] for row in task.predictions("test", taught(task, tokenizer))] == [0, 1, 2]

    def test_a_long_question_is_truncated_and_counted(
        self, tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="er")
        row = question("ab cd", "cd") | {"question": "abcdefgh " * 9}

        features = made([row], max_length=32).tokenize(tokenizer)["test"]

        assert features["token_type_ids"][0].count(0) <= 7 + 2
        assert "1 test questions truncated to 7 tokens" in caplog.text

    def test_a_length_without_room_is_refused(self, tokenizer: PreTrainedTokenizerFast) -> None:
        with pytest.raises(UserError, match="room for a question"):
            made(QUESTIONS, max_length=6).tokenize(tokenizer)


class TestSpans:
    SPANS = np.array([[0, 0], [0, 2], [3, 5], [6, 8], [0, 0]])

    @pytest.mark.parametrize(
        ("answers", "expected"),
        [([(3, 5)], (2, 2)), ([(0, 8)], (1, 3)), ([(4, 7)], (2, 3)), ([(6, 9)], NOWHERE), ([(7, 9), (0, 1)], (1, 1))],
    )
    def test_the_first_answer_that_lies_in_the_window(
        self, answers: list[tuple[int, int]], expected: tuple[int, int]
    ) -> None:
        assert span_of(self.SPANS, answers) == expected

    @given(
        st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=12),
        st.integers(1, 5),
        st.integers(0, 3),
    )
    def test_the_best_span_is_the_best_of_all(
        self, scores: list[tuple[float, float]], longest: int, before: int
    ) -> None:
        count = len(scores)
        spans = np.array([[0, 0]] * before + [[i, i + 1] for i in range(count)])
        logits = np.array([(99.0, 99.0)] * before + scores)

        found = best_span(spans, logits, longest)

        allowed = [(i, j) for i in range(count) for j in range(i, min(i + longest, count))]
        assert found is not None
        assert found.score == max(scores[i][0] + scores[j][1] for i, j in allowed)
        assert (found.start, found.end - 1) in allowed
        assert found.score == scores[found.start][0] + scores[found.end - 1][1]

    def test_a_window_without_passage_has_none(self) -> None:
        assert best_span(np.zeros((3, 2), dtype=int), np.zeros((3, 2)), 30) is None
        assert span_of(np.zeros((3, 2), dtype=int), [(0, 1)]) == NOWHERE


answer_texts = st.text("abthe A.,'é\u3000-", max_size=12)


@settings(deadline=None)
@given(st.lists(st.tuples(answer_texts, st.lists(answer_texts, min_size=1, max_size=3)), min_size=1, max_size=6))
def test_scores_are_those_of_torchmetrics(pairs: list[tuple[str, list[str]]]) -> None:
    measure = SQuAD()
    measure.update(
        [{"id": str(i), "prediction_text": text} for i, (text, _) in enumerate(pairs)],
        [
            {"id": str(i), "answers": {"text": right, "answer_start": [0] * len(right)}}
            for i, (_, right) in enumerate(pairs)
        ],
    )

    scores = [agreement(text, right) for text, right in pairs]

    expected = measure.compute()
    assert np.mean([em for em, _ in scores]) * 100 == pytest.approx(float(expected["exact_match"]), abs=1e-4)
    assert np.mean([f1 for _, f1 in scores]) * 100 == pytest.approx(float(expected["f1"]), abs=1e-4)


def test_a_task_scores_its_best_window(tokenizer: PreTrainedTokenizerFast) -> None:
    task = made(QUESTIONS)
    logits = taught(task, tokenizer)

    assert task.score("test", logits) == {"em": 1.0, "f1": 1.0}
    records = json.loads(json.dumps(task.predictions("test", logits)))
    assert records[1] == {
        "index": 1,
        "id": "1",
        "label": ["z", "x"],
        "prediction": "z",
        "score": 10.0,
        "em": 1.0,
        "f1": 1.0,
    }
    details = task.details("test", logits)
    assert (details["questions"], details["reachable"]) == (3, 3)


def test_an_answer_longer_than_allowed_is_out_of_reach(tokenizer: PreTrainedTokenizerFast) -> None:
    task = made(QUESTIONS, max_answer=3)
    logits = taught(task, tokenizer)

    assert task.details("test", logits)["reachable"] == 2
    assert task.score("test", logits)["em"] == pytest.approx(2 / 3)
