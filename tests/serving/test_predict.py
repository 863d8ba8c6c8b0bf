"""New texts are answered as the run's own test texts were, whatever they are, and whether or not they are known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import er
from er.cache.spaces import spaces
from er.cache.verify import examine
from er.choices import Switch
from er.commands.predict import count, files_of, predict, rows_of
from er.commands.unfinished import unfinished
from er.commands.upkeep import prune
from er.config import Config
from er.errors import UserError
from er.results import Result
from er.serving.predict import Predictor
from er.tasks import Row, readers
from er.testing import padded_batch, tiny
from tests.training.test_kinds import own

__all__ = ["own"]

Train = Callable[..., Result]
Compose = Callable[..., Config]

QUICK = ["method=reduced", "cut=2", "optim.epochs=1"]
PREDICTED = {"pair_classification": "label", "tagging": "entities", "extractive_qa": "answer"}


def folder_of(result: Result, tmp_path: Path) -> Path:
    (path,) = tmp_path.rglob(f"*-{result.run_id}")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def run(train: Train, tmp_path: Path) -> Path:
    return folder_of(train(*QUICK), tmp_path)


@pytest.fixture
def answered(small: Compose, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Predict a file as `er predict` does."""

    def answer(runs: list[Path], source: Path, *overrides: str) -> list[dict[str, Any]]:
        config = small("overwrite=true", *overrides)
        predict(config, list(map(str, runs)), str(source), str(tmp_path / "out.jsonl"))
        return lines(tmp_path / "out.jsonl")

    return answer


Answered = Callable[..., list[dict[str, Any]]]


@pytest.mark.parametrize(
    ("method", "mode"),
    [
        pytest.param(method, mode, marks=() if method == "reduced" or mode == "on" else pytest.mark.slow)
        for method in ("reduced", "finetune", "reduced_adapters", "cross_model")
        for mode in ("on", "read", "off")
    ],
)
def test_the_test_split_is_answered_as_the_run_answered_it(
    train: Train, answered: Answered, words: Path, tmp_path: Path, method: str, mode: str
) -> None:
    run = folder_of(train(f"method={method}", "cut=2", "optim.epochs=1"), tmp_path)

    found = answered([run], words / "test.jsonl", f"cache.mode={mode}", "predict.chunk=7")

    expected = lines(run / "predictions.jsonl")
    assert [row["label"] for row in found] == [row["prediction"] for row in expected]
    for row, was in zip(found, expected, strict=True):
        assert row["probability"] == pytest.approx(was["probability"], abs=1e-5)
        assert sum(row["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize("encode", ["joint", "separate"])
@pytest.mark.parametrize("kind", PREDICTED)
def test_every_kind_answers_its_own_test_split(
    own: Train, answered: Answered, tmp_path: Path, kind: str, encode: str
) -> None:
    if (kind, encode) == ("tagging", "separate"):
        pytest.skip("one text cannot be encoded apart")
    run = folder_of(own(kind, *QUICK, f"task.encode={encode}", "optim.epochs=3", "optim.lr=1e-2"), tmp_path)

    found = answered([run], tmp_path / kind / "test.jsonl", "predict.chunk=5")

    expected = [row["prediction"] for row in lines(run / "predictions.jsonl")]
    if kind == "tagging":
        from seqeval.metrics.sequence_labeling import get_entities

        got = [[(e["entity"], e["start"], e["end"] - 1) for e in row["entities"]] for row in found]
        assert got == [get_entities(tags) for tags in expected]
    else:
        assert [row[PREDICTED[kind]] or "" for row in found] == expected
    if kind == "extractive_qa":
        for row, given in zip(found, lines(tmp_path / kind / "test.jsonl"), strict=True):
            assert row["id"] == str(given["id"])
            assert given["context"][row["start"] : row["end"]] == row["answer"]


def test_the_entities_of_a_string_are_told_by_its_characters(own: Train, tmp_path: Path) -> None:
    run = folder_of(own("tagging", "method=finetune", "optim.epochs=15", "optim.lr=1e-3", "optim.warmup=0"), tmp_path)
    text = "the old  cat, on a\tsaw."

    [said] = er.predict(run, [text])

    assert said["entities"]
    for entity in said["entities"]:
        assert text[entity["start"] : entity["end"]].split() == entity["text"].split()


def test_several_runs_answer_in_one_record_what_each_answers_alone(
    train: Train, own: Train, answered: Answered, words: Path, tmp_path: Path
) -> None:
    runs = [
        folder_of(train(*QUICK), tmp_path),
        folder_of(train(*QUICK, "seed=1"), tmp_path),
        folder_of(train("method=reduced_adapters", "cut=3", "optim.epochs=1"), tmp_path),
    ]
    together = answered(runs, words / "test.jsonl")
    apart = [answered([run], words / "test.jsonl") for run in runs]

    for i, record in enumerate(together):
        index, *fields = record
        assert (index, record["index"]) == ("index", i)
        for name, alone in zip(fields, apart, strict=True):
            assert {"index": i} | record[name] == alone[i]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet"])
def test_texts_are_read_from_whatever_holds_them(run: Path, answered: Answered, tmp_path: Path, suffix: str) -> None:
    import pandas as pd

    texts = ["the cat is here", "a saw"]
    frame, path = pd.DataFrame({"text": texts}), tmp_path / f"new{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    elif suffix in (".csv", ".tsv"):
        frame.to_csv(path, index=False, sep="," if suffix == ".csv" else "\t")
    elif suffix == ".txt":
        path.write_text("\n".join(texts) + "\n")
    else:
        frame.to_json(path, orient="records", lines=suffix == ".jsonl")

    assert answered([run], path) == er.predict(run, texts)


def test_words_a_line_need_no_tags(own: Train, answered: Answered, tmp_path: Path) -> None:
    run = folder_of(own("tagging", *QUICK), tmp_path)
    (tmp_path / "new.conll").write_text("the\nold\ncat\n\na\nsaw\n")

    assert len(answered([run], tmp_path / "new.conll")) == 2


def test_blank_texts_are_named_and_the_others_answered(run: Path) -> None:
    blank = {"error": "blank text"}
    said = er.predict(run, ["", "the cat", " \n", {"text": None}])

    assert [{k: v for k, v in row.items() if k != "index"} for row in said if "error" in row] == [blank] * 3
    assert said[1]["label"] in ("animal", "tool")
    assert er.predict(run, []) == []


def test_a_text_that_is_too_long_is_cut_short_and_counted(train: Train, small: Compose, tmp_path: Path) -> None:
    run = folder_of(train(*QUICK, "task.max_length=8"), tmp_path)
    predictor = Predictor([er.load_run(run)], small())

    said = list(predictor.answers(Row(str(n), {"text": "the cat " * n}) for n in (0, 1, 50, 1)))

    assert ["label" in answer for answer in said] == [False, True, True, True]
    assert predictor.counts == {"texts": 4, "blank": 1, "truncated": 1}


def test_what_is_known_is_not_computed_again(run: Path, tmp_path: Path, small: Compose, words: Path) -> None:
    def segments() -> set[Path]:
        return {path for path in (tmp_path / "cache").glob("*/*.safetensors") if path.parent.name != "tokens"}

    before = segments()
    assert before
    er.predict(run, [row["text"] for row in lines(words / "test.jsonl")])
    er.predict(run, ["quite new"], cache="read")
    er.predict(run, ["quite new"], cache="off")
    assert segments() == before
    er.predict(run, ["quite new"])
    assert len(segments() - before) == 1


def entries(tmp_path: Path) -> int:
    (space,) = spaces(tmp_path / "cache")
    return space.entries


def test_a_corpus_that_changed_costs_what_is_new_and_what_is_gone_is_dropped(
    run: Path, answered: Answered, small: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def corpus(numbers: range) -> Path:
        path = tmp_path / "corpus.jsonl"
        path.write_text("".join(json.dumps({"text": f"text number {n}"}) + "\n" for n in numbers))
        return path

    before = entries(tmp_path)
    answered([run], corpus(range(200)))
    assert entries(tmp_path) == before + 200
    said = answered([run], corpus(range(2, 202)))
    assert entries(tmp_path) == before + 202  # 1 % new costs 1 % of the build

    config = small("action=prune", f"input={tmp_path}/corpus.jsonl", f"run={run}")
    prune(replace(config, dry_run=True))
    assert f"{before + 2} entries would go, 200 of this corpus remain" in capsys.readouterr().out
    assert entries(tmp_path) == before + 202
    prune(config)
    assert f"{before + 2} entries went, 200 of this corpus remain" in capsys.readouterr().out
    assert entries(tmp_path) == 200
    assert answered([run], tmp_path / "corpus.jsonl", "cache.mode=read") == said
    assert examine([space.directory for space in spaces(tmp_path / "cache")], progress=False).whole


def test_entries_are_dropped_only_for_a_corpus_and_a_run(run: Path, small: Compose, tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"text": ""}\n')
    before = entries(tmp_path)
    with pytest.raises(UserError, match="name a file or a folder, and run=DIR"):
        prune(small("action=prune", f"input={tmp_path}/corpus.jsonl"))
    with pytest.raises(UserError, match="holds no text at all"):
        prune(small("action=prune", f"input={tmp_path}/corpus.jsonl", f"run={run}"))
    assert entries(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"other": "x"}\n', r"new.jsonl:1: no column 'text', but other"),
        ('{"text": "x"}\n{"text": 3}\n', r"new.jsonl:2: column 'text' should hold text"),
        ('{"text": "x"}\n{"text": \n', r"new.jsonl:2: no JSON"),
    ],
)
def test_an_error_leaves_no_output_at_all(
    run: Path, answered: Answered, tmp_path: Path, content: str, says: str
) -> None:
    (tmp_path / "new.jsonl").write_text(content)

    with pytest.raises(UserError, match=says):
        answered([run], tmp_path / "new.jsonl", "predict.chunk=1")
    assert not [path for path in tmp_path.iterdir() if "out.jsonl" in path.name]


@pytest.mark.parametrize("mode", ["on", "off"])
def test_what_was_interrupted_goes_on_and_ends_the_same(
    run: Path, small: Compose, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    source, out = words / "test.jsonl", tmp_path / "out.jsonl"
    config = small("predict.chunk=5", f"cache.mode={mode}")
    predict(config, [str(run)], str(source), str(out))
    whole = out.read_text()
    out.unlink()

    answered = []

    def interrupted(self: Predictor, rows: Any, real: Any = Predictor._answered) -> Any:
        answered.append(len(rows))
        if len(answered) == 3:
            raise KeyboardInterrupt
        return real(self, rows)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Predictor, "_answered", interrupted)
        predict(config, [str(run)], str(source), str(out))
    assert not out.exists() and (tmp_path / ".out.jsonl.part").exists()

    answered.append(0)  # nobody is interrupted from now on
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "_answered", interrupted)
        predict(config, [str(run)], str(source), str(out))
    assert out.read_text() == whole
    assert sum(answered[4:]) == len(lines(source)) - 10
    assert not list(tmp_path.glob(".out*"))


def test_what_was_interrupted_is_begun_anew_for_another_input(
    run: Path, small: Compose, words: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    (tmp_path / ".out.jsonl.part").write_text('{"index": 0}\n')
    (tmp_path / ".out.jsonl.part.json").write_text(json.dumps({"told": [], "bytes": 13, "done": {"texts": 1}}))

    predict(small(), [str(run)], str(words / "test.jsonl"), str(out))

    assert [row["index"] for row in lines(out)] == list(range(len(lines(words / "test.jsonl"))))


def test_an_output_has_one_writer(run: Path, small: Compose, words: Path, tmp_path: Path) -> None:
    with (
        unfinished(tmp_path / "out.jsonl", "another"),
        pytest.raises(UserError, match=r"is being written by another er predict"),
    ):
        predict(small(), [str(run)], str(words / "test.jsonl"), str(tmp_path / "out.jsonl"))


def test_an_output_that_exists_is_kept(run: Path, small: Compose, words: Path, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(UserError, match=r"out.jsonl exists already.*overwrite=true"):
        predict(small(), [str(run)], str(words / "test.jsonl"), str(tmp_path / "out.jsonl"))
    with pytest.raises(UserError, match=r"there is no such file or folder"):
        predict(small("overwrite=true"), [str(run)], "nowhere.txt", str(tmp_path / "out.jsonl"))
    assert (tmp_path / "out.jsonl").read_text() == "mine"


TEXTS = st.one_of(
    st.text(max_size=40), st.dictionaries(st.just("text"), st.one_of(st.none(), st.text(), st.integers()))
)
FUZZ = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@FUZZ
@given(texts=st.lists(st.one_of(TEXTS, st.lists(st.text(), max_size=3), st.integers()), max_size=6))
def test_whatever_it_is_given_it_answers_or_says_what_is_wrong(loaded: Any, texts: list[Any]) -> None:
    try:
        said = er.predict(loaded, texts, cache="off")
    except UserError as error:
        assert str(error)
    else:
        assert [row["index"] for row in said] == list(range(len(texts)))
        assert all("error" in row or row["label"] in loaded.labels for row in said)


NAMES = ["text", "label", "tokens", "tags", "question", "context", "answers", "id", "sentence1", "sentence2"]
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inside: st.one_of(
        st.lists(inside, max_size=3),
        st.dictionaries(
            st.sampled_from([*NAMES, "data", "paragraphs", "qas"]),
            inside,
            max_size=4,
        ),
    ),
    max_leaves=12,
)
CELLS = st.lists(st.lists(st.text(max_size=8), min_size=1, max_size=3), max_size=4)


def _parquet(rows: list[Any]) -> bytes:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    try:
        pq.write_table(pa.Table.from_pylist(rows), sink)
    except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError):
        return b"PAR1"
    return sink.getvalue()


def _separated(cells: list[list[str]], separator: str) -> bytes:
    return "\n".join(separator.join(row) for row in cells).encode("utf-8", "surrogatepass")


STRUCTURES = {
    ".jsonl": st.lists(VALUES, max_size=4).map(lambda rows: "\n".join(map(json.dumps, rows)).encode()),
    ".json": VALUES.map(lambda value: json.dumps(value).encode()),
    ".csv": CELLS.map(lambda cells: _separated([["text", "tokens"], *cells], ",")),
    ".tsv": CELLS.map(lambda cells: _separated(cells, "\t")),
    ".txt": CELLS.map(lambda cells: _separated(cells, " ")),
    ".conll": CELLS.map(lambda cells: _separated(cells, "\t")),
    ".parquet": st.lists(st.dictionaries(st.sampled_from(["text", "tokens", "question", "context"]), VALUES)).map(
        _parquet
    ),
}


FILES = [
    pytest.param(kind, suffix, marks=() if (kind, suffix) == ("extractive_qa", ".json") else pytest.mark.slow)
    for kind in ("classification", *PREDICTED)
    for suffix in STRUCTURES
]


@pytest.mark.parametrize(("kind", "suffix"), FILES)
def test_whatever_a_file_holds_it_is_answered_or_said_to_be_wrong(
    train: Train, own: Train, small: Compose, tmp_path: Path, kind: str, suffix: str
) -> None:
    result = train(*QUICK) if kind == "classification" else own(kind, *QUICK)
    predictor = Predictor([er.load_run(folder_of(result, tmp_path))], small("cache.mode=off"))
    known = readers(predictor.runs[0].config.task)

    @settings(FUZZ, max_examples=60)
    @given(content=st.one_of(st.binary(max_size=60), STRUCTURES[suffix]), cut=st.integers(0, 60))
    def answers(content: bytes, cut: int) -> None:
        file = tmp_path / f"new{suffix}"
        file.write_bytes(content[: len(content) - cut] if cut % 4 == 0 else content)
        predictor.counts.clear()
        try:
            found = files_of(str(file), known)
            texts = count(found, known)
            said = list(predictor.answers(rows_of(found, known)))
        except UserError as error:
            assert str(error)
        else:
            assert len(said) == texts
            json.dumps(said, allow_nan=False).encode()

    answers()


@pytest.fixture
def loaded(run: Path) -> Any:
    return er.load_run(run)


def test_a_pipe_in_and_a_pipe_out(run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "er", "predict", f"run={run}", "input=-", "output=-", "trainer.progress=false"]
    done = subprocess.run(
        [*command, f"paths.cache={tmp_path}/cache"],
        input='{"text": "the cat"}\n{"text": ""}\n',
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=120,
        check=True,
    )

    first, second = map(json.loads, done.stdout.splitlines())
    assert first["label"] in ("animal", "tool") and second["error"] == "blank text"
    assert "2 texts, 1 of them blank" in done.stderr


@pytest.mark.parametrize("name", er.__all__)
def test_the_examples_in_the_documentation_run(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    import doctest

    import numpy as np
    import torch

    model = tiny("bert", "sequence")
    place = {"np": np, "torch": torch, "model": model, "inputs": padded_batch(model.config)}
    place |= {"folder": request.getfixturevalue("run") if name in ("load_run", "predict") else tmp_path / "cache"}
    place |= {name: getattr(er, name)}
    (example,) = doctest.DocTestFinder(recurse=False).find(place[name], name, globs=place)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


def test_the_names_of_the_package_are_what_they_say() -> None:
    from er.cache import ActivationCache
    from er.encoders import split

    assert er.split is split and er.ActivationCache is ActivationCache
    assert set(er.__all__) <= set(dir(er))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = er.nothing


def test_importing_the_package_is_cheap() -> None:
    code = "import er, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_reading_only_is_for_prediction(train: Train) -> None:
    assert "read" in Switch.__members__
    with pytest.raises(UserError, match=r"cache.mode=read is for er predict"):
        train(*QUICK, "cache.mode=read")
