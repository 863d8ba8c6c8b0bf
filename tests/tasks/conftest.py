from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pytest
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from er import choices, config

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer that spells: one token a letter, and inputs of 64 tokens at most."""
    vocabulary = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    vocabulary.write_text("\n".join([*SPECIAL, *ascii_lowercase, *(f"##{c}" for c in ascii_lowercase)]))
    return BertTokenizerFast(str(vocabulary), model_max_length=64)


Rows = list[dict[str, Any]]


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Write splits as JSON lines into a new directory: `folder(train=[...], dev=[...])`."""

    def write(**splits: Rows) -> Path:
        for split, rows in splits.items():
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture
def task() -> Callable[..., config.Task]:
    """Make a classification task; the keywords override its fields."""

    def make(**fields: Any) -> config.Task:
        return config.Task(name="own", kind=choices.Kind.classification, **fields)

    return make


@pytest.fixture(scope="session")
def data() -> Path:
    """The directory of real data sets, from ER_DATA."""
    if not os.environ.get("ER_DATA"):
        pytest.skip("ER_DATA is not set: no directory of real data sets")
    return Path(os.environ["ER_DATA"])
