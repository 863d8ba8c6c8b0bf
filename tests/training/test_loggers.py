"""W&B and CSV mirror the result: the same figures, also without a network."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from er.errors import UserError
from er.results import Result
from er.training.loggers import flat

Train = Callable[..., Result]

BLOCK = 32768
HEADER = 7
"""Bytes before the first record of a .wandb file, and before each fragment of a record: LevelDB's log format."""


def records(path: Path) -> Iterator[bytes]:
    """Yield the records of a .wandb file."""
    data, at, record = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last fragment
            yield record
            record = b""


def summary(path: Path) -> dict[str, object]:
    """Collect the summary of a W&B run."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    found: dict[str, object] = {}
    for raw in records(path):
        record = Record()
        record.ParseFromString(raw)
        for item in record.summary.update:
            found[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    return found


@pytest.mark.filterwarnings("default")  # wandb's own
def test_wandb_offline_carries_the_figures_of_the_result(train: Train, tmp_path: Path) -> None:
    first, second = train("logger=wandb", "seed=0"), train("logger=wandb", "seed=1")

    for result in (first, second):
        (file,) = tmp_path.rglob(f"run-{result.run_id}.wandb")
        sent = summary(file)
        for name, value in flat({"metrics": result.metrics, "seconds": result.seconds}).items():
            assert sent[name] == pytest.approx(value), name
        assert sent["steps"] == result.steps


def test_csv_has_every_epoch(train: Train, tmp_path: Path) -> None:
    result = train("logger=csv", "optim.epochs=3")

    (file,) = tmp_path.rglob("metrics.csv")
    losses = [float(row["dev/loss"]) for row in csv.DictReader(file.read_text().splitlines()) if row["dev/loss"]]
    assert losses == pytest.approx([epoch["dev/loss"] for epoch in result.history])


def test_an_unknown_logger_is_refused(train: Train) -> None:
    with pytest.raises(UserError, match="none, csv, wandb"):
        train("logger.name=tensorboard")
