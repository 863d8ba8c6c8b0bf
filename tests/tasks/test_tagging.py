from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score
from sklearn import metrics as sklearn
from transformers import BertTokenizer, PreTrainedTokenizerFast

from er import choices, config
from er.errors import UserError
from er.tasks import IGNORED, SPLITS, load_task
from er.tasks.conll import sentences
from er.tasks.sentences import Example
from er.tasks.tagging import Tagging
from tests.tasks.tokenizer_kinds import KINDS

Sentence = list[tuple[str, str]]

SENTENCES: list[Sentence] = [
    [("Aspirin", "B-drug"), ("helps", "O"), (".", "O")],
    [("Oral", "B-drug"), ("aspirin", "I-drug")],
    [("Not", "O"), ("here", "O")],
]


def own(**fields: Any) -> config.Task:
    return config.Task(**{"name": "own", "kind": choices.Kind.tagging, "text": ["tokens"], "label": "tags", **fields})


def conll(rows: list[Sentence], columns: str = "{}\t{}\n") -> str:
    return "".join("".join(columns.format(*pair) for pair in sentence) + "\n" for sentence in rows)


def written(suffix: str, rows: list[Sentence]) -> bytes:
    records = [{"tokens": [w for w, _ in row], "tags": [t for _, t in row]} for row in rows]
    if suffix == ".parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(records), sink)
        return bytes(sink.getvalue())
    if suffix == ".json":
        return json.dumps(records).encode()
    if suffix == ".jsonl":
        return "".join(json.dumps(record) + "\n" for record in records).encode()
    return conll(rows).encode()


SUFFIXES = [".conll", ".txt", ".tsv", ".jsonl", ".json", ".parquet"]


def made(rows: list[Sentence], **fields: Any) -> Tagging:
    """A task whose three splits hold these sentences."""
    examples = [Example(tuple(w for w, _ in row), tuple(t for _, t in row), f"test:{i}") for i, row in enumerate(rows)]
    return Tagging(own(**fields), {split: examples for split in SPLITS})


def read(data: bytes | str, suffix: str = ".conll") -> list[Sentence]:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, f"train{suffix}")
        file.write_bytes(data.encode() if isinstance(data, str) else data)
        return [list(zip(row.fields["tokens"], row.fields["tags"], strict=True)) for row in sentences(file)]


def loaded(data: bytes, suffix: str, **fields: Any) -> Tagging:
    with tempfile.TemporaryDirectory() as directory:
        for split in SPLITS:
            Path(directory, f"{split}{suffix}").write_bytes(data)
        task = load_task(own(path=directory, **fields), None)
        assert isinstance(task, Tagging)
        return task


class TestFiles:
    @pytest.mark.parametrize(
        "columns", ["{}\t{}\n", "{} {}\n", "{}   {}\n", "{}\tNN\tO\t{}\n", "{} NN O {}\n", "{}\t{}\r\n"]
    )
    def test_the_first_column_is_the_token_and_the_last_its_tag(self, columns: str) -> None:
        assert read(conll(SENTENCES, columns)) == SENTENCES

    def test_what_is_no_sentence_is_passed_over(self) -> None:
        head = "\ufeff-DOCSTART- (123)\r\n\r\n"
        text = head + conll(SENTENCES).replace("\n\n", "\r\n  \t \r\n\r\n-DOCSTART-\tO\r\n").rstrip()

        assert read(text) == SENTENCES

    def test_the_last_line_needs_no_end(self) -> None:
        assert read(conll(SENTENCES).rstrip("\n")) == SENTENCES

    def test_an_error_names_the_line(self, tmp_path: Path) -> None:
        (tmp_path / "train.conll").write_text(conll(SENTENCES).replace("I-drug", "drug"))

        with pytest.raises(UserError, match=r"train\.conll:6: 'drug' is no tag"):
            load_task(own(path=str(tmp_path)), None)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a\tO\nb\tNN\tO\n", ":2: 3 columns, but the lines before it have 2"),
            ("a\tNN\tO\nb\tO\n", ":2: 2 columns, but the lines before it have 3"),
            ("alone\n", ":1: 'alone' is one column"),
            ('{"tokens": ["a"], "tags": ["O"]}', ":1: .*is no tag|one column"),
            ("\n \tO\nb\tO\n", ":2: .*token, is blank"),
        ],
    )
    def test_a_bad_line_is_named(self, text: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            read(text)

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_every_format_holds_the_same(self, suffix: str) -> None:
        task = loaded(written(suffix, SENTENCES), suffix)

        assert [list(zip(e.words, e.tags, strict=True)) for e in task.examples["train"]] == SENTENCES

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"tokens": ["a"], "tags": ["O", "O"]}, "1 tokens but 2 tags"),
            ({"tokens": "a", "tags": ["O"]}, "'tokens' should hold a list, but is 'a'"),
            ({"tokens": ["a", None], "tags": ["O", "O"]}, "words only, but holds None"),
            ({"tokens": ["a"], "tags": [1]}, "'1' is no tag.*task.label_names"),
            ({"tokens": ["a"], "tags": ["x"]}, "'x' is no tag"),
            ({"tokens": ["\ud800"], "tags": ["O"]}, "half a character"),
            ({"words": ["a"], "tags": ["O"]}, "no column 'tokens', but words, tags.*task.text"),
        ],
    )
    def test_a_bad_row_is_named(self, row: dict[str, Any], message: str, tmp_path: Path) -> None:
        good = {"tokens": ["a"], "tags": ["B-x"]}
        (tmp_path / "train.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(row)}\n")

        with pytest.raises(UserError, match=rf"train\.jsonl:2: .*{message}"):
            load_task(own(path=str(tmp_path)), None)

    def test_numbers_stand_for_the_tags_that_the_task_names(self) -> None:
        rows = [{"tokens": ["a", "b"], "tags": [1, 0]}, {"tokens": [], "tags": []}]
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()

        task = loaded(data, ".jsonl", label_names=["O", "B-x"])

        assert [e.tags for e in task.examples["test"]] == [("B-x", "O")]

    def test_a_set_without_entities_is_refused(self) -> None:
        with pytest.raises(UserError, match="nothing to learn"):
            made([[("a", "O")]])

    def test_two_columns_of_tokens_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="one column"):
            load_task(own(path=str(tmp_path), text=["a", "b"]), None)


token = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n\ufeff"), min_size=1).filter(
    lambda word: bool(word.strip()) and not word.startswith("-DOCSTART-")
)
tag = st.from_regex(r"O|[BI]-[^\s\0\ud800-\udfff]{1,3}", fullmatch=True)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(st.lists(st.tuples(token, tag), min_size=1, max_size=4), min_size=1, max_size=3))
def test_what_was_written_is_read(suffix: str, rows: list[Sentence]) -> None:
    task = loaded(written(suffix, [*rows, [("a", "B-x")]]), suffix)

    assert [list(e.words) for e in task.examples["train"][:-1]] == [[w for w, _ in row] for row in rows]
    if suffix in (".conll", ".txt", ".tsv"):
        assert read(written(suffix, rows)) == rows


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_bytes_give_a_task_or_a_user_error(suffix: str, data: st.DataObject) -> None:
    sound = written(suffix, SENTENCES * 5)
    place, byte = data.draw(st.tuples(st.integers(0, len(sound) - 1), st.binary(min_size=1, max_size=3)))
    content = data.draw(st.one_of(st.binary(), st.just(sound[:place] + byte + sound[place + 1 :])))
    try:
        task = loaded(content, suffix)
    except UserError as error:
        assert str(error)
    else:
        assert task.sizes["train"] > 0


class TestTokens:
    def test_the_first_piece_of_each_word_is_labelled(self, tokenizer: PreTrainedTokenizerFast) -> None:
        task = made([[("ab", "B-x"), ("c", "O"), ("d-e", "I-x")]])

        features = task.tokenize(tokenizer)["test"][0]

        assert task.labels == ["O", "B-x", "I-x"]
        assert features["input_ids"] == tokenizer("ab c d-e")["input_ids"]
        labels = [IGNORED, 1, IGNORED, 0, 1, IGNORED, IGNORED, IGNORED]  # [CLS] a ##b c d - e [SEP]
        assert features["labels"] == labels

    @settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.text("abcdefg", min_size=1, max_size=9), min_size=1, max_size=60), st.integers(0, 20))
    def test_every_word_is_learned_and_scored_once(
        self, tokenizer: PreTrainedTokenizerFast, words: list[str], stride: int
    ) -> None:
        tags = ["B-x" if len(word) % 2 else "O" for word in words]
        task = made([list(zip(words, tags, strict=True)), [("a", "B-x")]], max_length=16, stride=stride)

        features = task.tokenize(tokenizer)["test"]
        labels = [label for row in features["labels"] for label in row if label != IGNORED]

        assert len(labels) == len(words) + 1
        assert max(map(len, features["input_ids"])) <= 16
        assert task.score("test", of_labels(task, features["labels"]))["entity_f1"] == 1

    def test_a_word_of_two_windows_is_tagged_where_most_stands_around_it(
        self, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        letters = "abcdefghijklmnop"
        task = made([[(letter, "B-x") for letter in letters]], max_length=12, stride=5)

        rows = task.tokenize(tokenizer)["test"]

        shown = [[tokenizer.decode([i]) for i in row["input_ids"]] for row in rows]
        assert ["".join(row[1:-1]) for row in shown] == ["abcdefghij", "fghijklmno", "klmnop"]
        labelled = [
            "".join(piece for piece, label in zip(row, feature["labels"], strict=True) if label != IGNORED)
            for row, feature in zip(shown, rows, strict=True)
        ]
        assert labelled == ["abcdefgh", "ijklm", "nop"] or labelled[0].startswith("abcdefg")
        assert "".join(sorted("".join(labelled))) == letters

    def test_a_word_without_a_piece_is_no_entity(self, tokenizer: PreTrainedTokenizerFast) -> None:
        task = made([[("a", "B-x"), ("\u200b", "B-x"), ("b", "O")]])

        features = task.tokenize(tokenizer)["test"]

        logits = of_labels(task, features["labels"])
        assert task.predictions("test", logits)[0]["prediction"] == ["B-x", "O", "O"]
        assert task.score("test", logits)["entity_recall"] == 0.5

    def test_a_slow_tokenizer_does_as_well(self, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
        (tmp_path / "vocab.txt").write_text("\n".join(sorted(vocab := tokenizer.get_vocab(), key=vocab.__getitem__)))
        slow = BertTokenizer(str(tmp_path / "vocab.txt"), model_max_length=64)
        task = made(SENTENCES)

        assert task.tokenize(slow)["test"].to_dict() == task.tokenize(tokenizer)["test"].to_dict()


def of_labels(task: Tagging, labels: list[list[int]]) -> list[np.ndarray]:
    """Logits that are right wherever there is a label, and say O elsewhere."""
    return [np.eye(task.outputs, dtype=np.float32)[np.maximum(row, 0)] for row in labels]


words_of_three = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(words_of_three, min_size=1, max_size=5))
def test_scores_are_those_of_seqeval_and_scikit_learn(
    tokenizer: PreTrainedTokenizerFast, answers: list[list[tuple[int, int]]]
) -> None:
    labels = ["O", "B-x", "I-x", "B-y", "I-y"]
    anchor = [[("a", "B-x"), ("a", "B-y"), ("a", "B-x")]]
    task = made([[("a", labels[gold]) for gold, _ in row] for row in answers] + anchor)
    task.tokenize(tokenizer)
    guesses = [[guess for _, guess in row] for row in answers] + [[0, 0, 0]]

    score = task.score("test", [np.eye(5)[[0, *row, 0]] for row in guesses])

    gold = [list(example.tags) for example in task.examples["test"]]
    guess = [[labels[i] for i in row] for row in guesses]
    flat, flat_guess = list(chain(*gold)), list(chain(*guess))
    assert score == {
        "entity_precision": precision_score(gold, guess, zero_division=0),
        "entity_recall": recall_score(gold, guess, zero_division=0),
        "entity_f1": f1_score(gold, guess, zero_division=0),
        "token_micro_f1": sklearn.f1_score(flat, flat_guess, average="micro"),
        "token_macro_f1": sklearn.f1_score(flat, flat_guess, average="macro", zero_division=0),
    }


def test_details_name_every_kind_and_tag(tokenizer: PreTrainedTokenizerFast) -> None:
    task = made(SENTENCES)
    features = task.tokenize(tokenizer)["test"]

    details = json.loads(json.dumps(task.details("test", of_labels(task, features["labels"]))))

    assert details["classes"]["drug"]["f1-score"] == 1
    assert details["confusion"] == {"labels": ["O", "B-drug", "I-drug"], "matrix": [[4, 0, 0], [0, 2, 0], [0, 0, 1]]}


def test_details_name_kinds_only() -> None:
    task = made([[("a", "B-x"), ("b", "I-x"), ("c", "B-y")]])
    task._at, task._lengths = {"test": np.array([0, 1, 2])}, {"test": np.array([3])}

    details = task.details("test", [np.eye(5)[[1, 2, 0]]])

    assert details["classes"] == {
        "x": {"precision": 1, "recall": 1, "f1-score": 1, "support": 1},
        "y": {"precision": 0, "recall": 0, "f1-score": 0, "support": 1},
    }


@pytest.mark.filterwarnings("error")
def test_where_no_sentence_holds_an_entity_there_is_no_entity_f1(
    folder: Callable[..., Path], tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    some, none = [{"tokens": ["a"], "tags": ["B-x"]}], [{"tokens": ["b"], "tags": ["O"]}]
    task = load_task(own(path=str(folder(train=some, dev=some, test=none))), None)
    logits = of_labels(task, task.tokenize(tokenizer)["test"]["labels"])  # type: ignore[arg-type]

    assert task.score("test", logits) == {"token_micro_f1": 1, "token_macro_f1": 1}
    assert "NaN" not in json.dumps(details := task.details("test", logits)) and details["classes"] == {}
    assert task.unscored == {"test"}
    assert caplog.text.count("no test sentence holds an entity") == 1


def test_logits_of_another_split_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    task = made(SENTENCES)
    task.tokenize(tokenizer)

    with pytest.raises(ValueError, match="0 logits of test, not 3"):
        task.score("test", [])


class TestUnseen:
    def folder(self, tmp_path: Path) -> str:
        for split, kind in {"train": "x", "dev": "x", "test": "new"}.items():
            (tmp_path / f"{split}.conll").write_text(conll([[("a", "O")], [(f"b {split}", f"B-{kind}")]]))
        return str(tmp_path)

    def test_an_entity_that_training_never_shows_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"test\.conll:3: entity 'new' never occurs"):
            load_task(own(path=self.folder(tmp_path)), None)

    def test_or_counts_as_wrong(self, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
        wrong = choices.UnseenLabel.wrong
        task = load_task(own(path=self.folder(tmp_path), unseen_label=wrong), None)
        assert isinstance(task, Tagging)
        features = task.tokenize(tokenizer)["test"]

        assert all(label in (0, IGNORED) for row in features["labels"] for label in row)
        assert task.score("test", of_labels(task, features["labels"]))["entity_f1"] == 0


def test_equal_sentences_in_train_and_test_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    assert made(SENTENCES).leaks == 3
    assert "3 of 3 test examples" in caplog.text


def test_the_folder_may_hold_any_format(folder: Callable[..., Path]) -> None:
    rows = [{"tokens": ["a"], "tags": ["B-x"]}, {"tokens": ["b"], "tags": ["O"]}]

    assert load_task(own(path=str(folder(train=rows, dev=rows, test=rows))), None).sizes["test"] == 2


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_tokenizer_learns_and_scores_every_word(kind: str, tmp_path: Path) -> None:
    words = [
        ("alpha-1", "B-gene"),
        ("binds", "O"),
        ("the", "O"),
        ("cell", "B-cell"),
        ("(not)", "O"),
        ("naïve", "B-cell"),
    ]
    task = made([words * 9, words], max_length=24, stride=6)

    features = task.tokenize(KINDS[kind](tmp_path))["test"]

    assert len(features) > 2
    assert sum(label != IGNORED for row in features["labels"] for label in row) == 10 * len(words)
    assert task.score("test", of_labels(task, features["labels"]))["entity_f1"] == 1
