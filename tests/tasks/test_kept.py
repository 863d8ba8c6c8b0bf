"""Tokenised texts are made once; whatever they depend on, and any damage, makes them anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import BertTokenizer, PreTrainedTokenizerFast

from er import choices, config
from er.tasks import load_task

Rows = list[dict[str, Any]]

LONG = "ab cd ef gh ij kl mn op qr st uv wx yz " * 3
KINDS: dict[str, tuple[list[str], Rows]] = {
    "classification": (["text"], [{"text": "ab c", "label": "x"}, {"text": LONG, "label": "y"}]),
    "pair_classification": (["a", "b"], [{"a": "ab", "b": LONG, "label": 0}, {"a": "c", "b": "d", "label": 1}]),
    "tagging": (["tokens"], [{"tokens": LONG.split(), "label": ["B-A", *["O"] * (len(LONG.split()) - 1)]}]),
    "extractive_qa": (
        ["q", "p"],
        [{"q": "ab", "p": LONG, "label": {"text": ["ef gh"], "answer_start": [6]}, "id": "1"}],
    ),
}


@pytest.fixture(params=[*KINDS, "extractive_qa apart", "pair_classification apart"])
def made(request: pytest.FixtureRequest, folder: Callable[..., Path]) -> Callable[..., Any]:
    """Load a small task of a kind, as a run would; the keywords change it."""
    kind, _, apart = request.param.partition(" ")
    text, rows = KINDS[kind]
    encode = choices.Encode.separate if apart else choices.Encode.joint
    plain = config.Task(name="own", kind=choices.Kind[kind], text=text, encode=encode, max_length=48, stride=4)

    def make(rows: Rows = rows, **fields: Any) -> Any:
        path = folder(train=rows, dev=rows, test=rows)
        return load_task(replace(plain, path=str(path), **fields), None)

    return make


def logits(task: Any, rows: Any) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    shape = {"sequence": lambda ids: (task.outputs,)}.get(task.head, lambda ids: (len(ids), task.outputs))
    return [draw.normal(size=shape(ids)) for ids in rows["input_ids"]]


def test_a_second_run_finds_them_and_scores_by_them(
    made: Callable[..., Any], tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = made(), made()
    new = first.tokenize(tokenizer, tmp_path / "store")
    monkeypatch.setattr(second, "features", lambda tokenizer: pytest.fail("tokenised again"))
    found = second.tokenize(tokenizer, tmp_path / "store")

    assert {split: rows.to_dict() for split, rows in found.items()} == {s: rows.to_dict() for s, rows in new.items()}
    scores = logits(first, new["test"])
    assert second.predictions("test", scores) == first.predictions("test", scores)


def test_what_they_depend_on_makes_them_anew(
    made: Callable[..., Any], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    changed = [made(), made(max_length=32), made(rows=_renamed(made))]
    for count, task in enumerate(changed, start=1):
        task.tokenize(tokenizer, store)
        assert len(list(store.iterdir())) == count
    tokenizer.add_tokens(["zz"])
    made().tokenize(tokenizer, store)
    assert len(list(store.iterdir())) == len(changed) + 1


def _renamed(made: Callable[..., Any]) -> Rows:
    kind = made()._task.kind.name
    rows = KINDS[kind][1]
    if kind == "tagging":
        return [{"tokens": ["zz", *row["tokens"][1:]], "label": row["label"]} for row in rows]
    last = KINDS[kind][0][-1]
    return [{**row, last: row[last] + " zz"} for row in rows]


def test_a_flipped_byte_makes_them_anew(
    made: Callable[..., Any], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    new = made().tokenize(tokenizer, tmp_path / "store")["train"].to_dict()
    for file in sorted((tmp_path / "store").rglob("*.arrow")):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)

        assert made().tokenize(tokenizer, tmp_path / "store")["train"].to_dict() == new


def test_without_their_digest_they_are_made_anew(
    made: Callable[..., Any], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    new = made().tokenize(tokenizer, tmp_path / "store")["train"].to_dict()
    (digest,) = (tmp_path / "store").glob("*/digest")
    digest.unlink()

    assert made().tokenize(tokenizer, tmp_path / "store")["train"].to_dict() == new
    assert digest.is_file()


def test_what_another_run_kept_meanwhile_stays(
    made: Callable[..., Any], tokenizer: PreTrainedTokenizerFast, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slow, fast = made(), made()
    features = slow.features

    def meanwhile(tokenizer: PreTrainedTokenizerFast) -> Any:
        fast.tokenize(tokenizer, tmp_path / "store")
        return features(tokenizer)

    slow.features = meanwhile
    slow.tokenize(tokenizer, tmp_path / "store")

    assert "not kept" not in caplog.text
    assert len(list((tmp_path / "store").iterdir())) == 1


def test_where_they_cannot_be_kept_they_are_made(
    made: Callable[..., Any], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    assert set(made().tokenize(tokenizer, tmp_path / "file" / "store")) == {"train", "dev", "test"}


def test_a_slow_tokenizer_keeps_nothing(task: Callable[..., config.Task], folder: Any, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb")
    rows = [{"text": letter, "label": letter} for letter in "ab"]
    loaded = load_task(task(path=str(folder(train=rows, dev=rows, test=rows))), None)

    loaded.tokenize(BertTokenizer(str(tmp_path / "vocab.txt"), model_max_length=9), tmp_path / "store")
    assert not (tmp_path / "store").exists()
