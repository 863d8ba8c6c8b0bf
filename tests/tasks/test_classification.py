from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score
from transformers import PreTrainedTokenizerFast

from er import choices, config
from er.errors import UserError
from er.tasks import IGNORED, Task, load_task
from er.tasks.classification import Classification, Example

MakeTask = Callable[..., config.Task]
Folder = Callable[..., Path]

TRAIN = [{"text": "good dog", "label": "pos"}, {"text": "bad cat", "label": "neg"}]
TEST = [{"text": "dog", "label": "pos"}, {"text": "cat", "label": "neg"}, {"text": "cow", "label": "pos"}]


def of_labels(labels: list[str], task: config.Task) -> Task:
    """A task whose test split has these labels; training shows `a`, `b` and `c`."""
    examples = [Example((f"text {i}",), label, f"test:{i}") for i, label in enumerate(labels)]
    train = [Example((label,), label, "train") for label in "abc"]
    return Classification(task, {"train": train, "dev": train, "test": examples})


class TestLabels:
    def test_they_are_those_of_train_sorted(self, task: MakeTask, folder: Folder) -> None:
        loaded = load_task(task(path=str(folder(train=TRAIN, dev=TEST[:1], test=TEST))), None)

        assert loaded.labels == ["neg", "pos"]
        assert loaded.outputs == 2
        assert loaded.head == "sequence"

    @pytest.mark.parametrize("values", [[0, 1], [True, False], ["0", "1"], ["ja", "nein"]])
    def test_they_may_be_names_or_whole_numbers(self, values: list[Any], task: MakeTask, folder: Folder) -> None:
        rows = [{"text": "a", "label": value} for value in values]

        loaded = load_task(task(path=str(folder(train=rows, dev=rows, test=rows))), None)

        assert loaded.labels == sorted(map(str, values))

    def test_a_limit_leaves_them_whole(self, task: MakeTask, folder: Folder) -> None:
        path = folder(train=TRAIN * 10, dev=TEST, test=TEST)

        loaded = load_task(task(path=str(path), limit=1), None)

        assert loaded.sizes == {"train": 1, "dev": 3, "test": 3}
        assert loaded.labels == ["neg", "pos"]

    def test_one_that_ends_up_in_a_derived_split_alone_is_known(self, task: MakeTask, folder: Folder) -> None:
        rows = [{"text": f"text {i}", "label": str(i)} for i in range(100)]

        assert load_task(task(path=str(folder(train=rows))), None).outputs == 100

    @pytest.mark.parametrize("split", ["dev", "test"])
    def test_an_unseen_one_is_an_error_with_file_and_line(self, split: str, task: MakeTask, folder: Folder) -> None:
        path = folder(**{"train": TRAIN, "dev": TEST, "test": TEST, split: [*TEST, {"text": "a", "label": "new"}]})

        with pytest.raises(UserError, match=rf"{split}\.jsonl:4: label 'new'.*unseen_label=wrong"):
            load_task(task(path=str(path)), None)

    def test_an_unseen_one_may_count_as_wrong(
        self, task: MakeTask, tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
    ) -> None:
        loaded = of_labels(["a", "b", "new"], task(unseen_label=choices.UnseenLabel.wrong))
        logits = [np.eye(3)[0], np.eye(3)[1], np.eye(3)[1]]

        assert loaded.tokenize(tokenizer)["test"]["labels"] == [0, 1, IGNORED]
        assert loaded.score("test", logits)["accuracy"] == pytest.approx(2 / 3)
        assert loaded.score("test", logits)["micro_f1"] == pytest.approx(2 / 3)
        assert loaded.score("test", logits)["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
        assert loaded.predictions("test", logits)[2]["label"] == "new"
        assert "1 of 3 test examples" in caplog.text

    def test_numbers_may_be_given_names(self, task: MakeTask, folder: Folder) -> None:
        rows = [{"text": "a", "label": 0}, {"text": "b", "label": "1"}, {"text": "c", "label": "other"}]
        path = str(folder(train=rows, dev=rows, test=rows))

        assert load_task(task(path=path, label_names=["no", "yes"]), None).labels == ["no", "other", "yes"]
        with pytest.raises(UserError, match=r"train\.jsonl:2: column 'label' is 1.*task\.label_names has 1"):
            load_task(task(path=path, label_names=["no"]), None)

    def test_a_single_one_is_refused(self, task: MakeTask, folder: Folder) -> None:
        with pytest.raises(UserError, match="nothing to learn"):
            load_task(task(path=str(folder(train=TRAIN[:1], dev=TRAIN, test=TRAIN))), None)


WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"label": "pos"}, ["no column 'text', but label", "task.text"]),
    ({"text": "a"}, ["no column 'label', but text", "task.label"]),
    ({}, ["no column at all"]),
    ({"text": None, "label": "pos"}, ["should hold text, but is None"]),
    ({"text": 3, "label": "pos"}, ["should hold text, but is 3"]),
    ({"text": ["a"], "label": "pos"}, ["should hold text, but is a list"]),
    ({"text": " \n\t", "label": "pos"}, ["should hold text, but is blank"]),
    ({"text": "a", "label": None}, ["should hold a label", "but is None"]),
    ({"text": "a", "label": ""}, ["should hold a label", "but is blank"]),
    ({"text": "a", "label": 0.5}, ["should hold a label", "but is 0.5"]),
    ({"text": "a", "label": ["pos"]}, ["should hold a label", "but is a list"]),
    ({"text": "a \ud800", "label": "pos"}, ["half a character"]),
    ({"text": "a", "label": "\udc80"}, ["half a character"]),
]


@pytest.mark.parametrize(("row", "message"), WRONG)
def test_a_bad_example_is_named(row: dict[str, Any], message: list[str], task: MakeTask, folder: Folder) -> None:
    path = folder(train=[*TRAIN, row], dev=TEST, test=TEST)

    with pytest.raises(UserError) as error:
        load_task(task(path=str(path)), None)

    for part in ["train.jsonl:3: ", *message]:
        assert part in str(error.value)


@pytest.mark.parametrize("columns", [[], ["a"], ["a", "b", "c"]])
def test_a_pair_has_two_columns(columns: list[str]) -> None:
    task = config.Task(name="own", kind=choices.Kind.pair_classification, text=columns)

    with pytest.raises(UserError, match="two columns of a pair"):
        load_task(task, None)


def test_a_pair_of_texts_is_a_kind_of_its_own(folder: Folder) -> None:
    rows = [{"q": "ab", "a": "cd e", "same": label} for label in (0, 1)]
    options: Any = {"path": str(folder(train=rows, dev=rows, test=rows)), "text": ["q", "a"], "label": "same"}

    loaded = load_task(config.Task(name="own", kind=choices.Kind.pair_classification, **options), None)

    assert loaded.head == "sequence"
    assert loaded.leaks == 2


@pytest.mark.parametrize("columns", [[], ["a", "b", "c"]])
def test_one_or_two_columns_hold_text(columns: list[str], task: MakeTask) -> None:
    with pytest.raises(UserError, match="one column, or two"):
        load_task(task(text=columns), None)


class TestTokens:
    def test_a_feature_is_what_the_tokenizer_gives(
        self, task: MakeTask, folder: Folder, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        loaded = load_task(task(path=str(folder(train=TRAIN, dev=TEST, test=TEST))), None)

        features = loaded.tokenize(tokenizer)

        assert list(features) == ["train", "dev", "test"]
        for rows, split in ((TRAIN, "train"), (TEST, "dev"), (TEST, "test")):
            for row, feature in zip(rows, features[split], strict=True):
                expected = tokenizer(row["text"], return_attention_mask=False)
                assert feature == {**expected, "labels": loaded.labels.index(row["label"])}

    def test_type_ids_are_there_only_if_the_tokenizer_makes_them(
        self, task: MakeTask, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        tokenizer.model_input_names = ["input_ids", "attention_mask"]

        features = of_labels(["a"], task()).tokenize(tokenizer)

        assert set(features["test"].column_names) == {"input_ids", "labels"}

    def test_a_pair_is_one_input_of_two_types(
        self, task: MakeTask, folder: Folder, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        rows = [{"q": "ab", "a": "cd e", "same": label} for label in (0, 1)]
        path = folder(train=rows, dev=rows, test=rows)

        features = load_task(task(path=str(path), text=["q", "a"], label="same"), None).tokenize(tokenizer)

        assert features["train"][0]["input_ids"] == tokenizer("ab", "cd e")["input_ids"]
        assert features["train"][0]["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1, 1]

    @pytest.mark.parametrize("shipped", ["as is", "truncating and padding"])
    def test_long_inputs_are_truncated_to_the_limit_and_counted(
        self,
        shipped: str,
        task: MakeTask,
        tokenizer: PreTrainedTokenizerFast,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.INFO, logger="er")
        if shipped != "as is":
            tokenizer.backend_tokenizer.enable_truncation(4)
            tokenizer.backend_tokenizer.enable_padding(length=16)
        train = [Example(("x " * n,), "ab"[n % 2], "") for n in (1, 8, 9, 100)]
        loaded = Classification(task(max_length=10), {"train": train, "dev": train[:1], "test": train[2:]})

        features = loaded.tokenize(tokenizer)

        assert [len(ids) for ids in features["train"]["input_ids"]] == [3, 10, 10, 10]
        assert [len(ids) for ids in features["train"]["token_type_ids"]] == [3, 10, 10, 10]
        assert all(ids[-1] == 3 for ids in features["train"]["input_ids"])
        assert "2 of 4 train inputs truncated to 10 tokens" in caplog.text
        assert "2 of 2 test inputs truncated to 10 tokens" in caplog.text
        assert "dev inputs" not in caplog.text

    def test_a_pair_is_truncated_at_its_longer_side(self, task: MakeTask, tokenizer: PreTrainedTokenizerFast) -> None:
        pairs = [Example(("x " * 50, "y y"), label, "") for label in "ab"]
        loaded = Classification(task(max_length=10), {"train": pairs, "dev": pairs, "test": pairs})

        assert loaded.tokenize(tokenizer)["dev"][0]["token_type_ids"] == [0] * 7 + [1] * 3

    def test_the_model_is_never_given_more_than_it_takes(
        self, task: MakeTask, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        train = [Example(("x " * 100,), label, "") for label in "ab"]
        loaded = Classification(task(max_length=512), {"train": train, "dev": train, "test": train})

        assert len(loaded.tokenize(tokenizer)["train"][0]["input_ids"]) == 64

    @pytest.mark.parametrize("length", [-1, 0, 2])
    def test_a_limit_without_room_for_text_is_refused(
        self, length: int, task: MakeTask, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        with pytest.raises(UserError, match=r"task\.max_length"):
            of_labels(["a"], task(max_length=length)).tokenize(tokenizer)

    def test_nothing_is_printed(
        self, task: MakeTask, tokenizer: PreTrainedTokenizerFast, capfd: pytest.CaptureFixture[str]
    ) -> None:
        of_labels(["a", "b"] * 600, task()).tokenize(tokenizer)

        assert capfd.readouterr() == ("", "")

    def test_two_splits_never_share_a_fingerprint(self, task: MakeTask, tokenizer: PreTrainedTokenizerFast) -> None:
        # What is mapped next is looked up under it: equal fingerprints would serve one split as another.
        features = of_labels(["a", "b"], task()).tokenize(tokenizer)

        assert len({split._fingerprint for split in features.values()}) == 3


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 2)), min_size=1, max_size=50))
def test_scores_are_those_of_scikit_learn(answers: list[tuple[str, int]]) -> None:
    gold, guess = [label for label, _ in answers], ["abc"[i] for _, i in answers]
    task = config.Task(name="own", kind=choices.Kind.classification, unseen_label=choices.UnseenLabel.wrong)

    score = of_labels(gold, task).score("test", [np.eye(3, dtype=np.float32)[i] for _, i in answers])

    assert score == {
        "accuracy": accuracy_score(gold, guess),
        "micro_f1": f1_score(gold, guess, average="micro", zero_division=0),
        "macro_f1": f1_score(gold, guess, average="macro", zero_division=0),
    }
    assert score["accuracy"] == pytest.approx(score["micro_f1"])


def test_predictions_are_records_that_json_can_hold(task: MakeTask) -> None:
    logits = [np.array([0.0, 1000.0, 0.0], np.float32), np.log(np.array([0.6, 0.3, 0.1]))]

    records = of_labels(["b", "c"], task()).predictions("test", logits)

    assert json.loads(json.dumps(records)) == [
        {"index": 0, "label": "b", "prediction": "b", "probability": 1.0},
        {"index": 1, "label": "c", "prediction": "a", "probability": pytest.approx(0.6)},
    ]


def test_details_name_every_label(task: MakeTask) -> None:
    loaded = of_labels(["a", "b", "new"], task(unseen_label=choices.UnseenLabel.wrong))

    details = json.loads(json.dumps(loaded.details("test", [np.eye(3)[0], np.eye(3)[0], np.eye(3)[2]])))

    assert details["classes"]["a"] == {"precision": 0.5, "recall": 1.0, "f1-score": pytest.approx(2 / 3), "support": 1}
    assert details["classes"]["new"]["recall"] == 0
    assert details["confusion"] == {
        "labels": ["a", "b", "c", "new"],
        "matrix": [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]],
    }


def test_logits_of_another_split_are_refused(task: MakeTask) -> None:
    with pytest.raises(ValueError, match="1 logits of test, not 2"):
        of_labels(["a", "b"], task()).score("test", [np.zeros(3)])


def test_logits_that_are_no_numbers_are_refused(task: MakeTask) -> None:
    with pytest.raises(UserError, match=r"not finite.*optim\.lr"):
        of_labels(["a"], task()).score("test", [np.array([0.0, np.nan, 0.0])])
