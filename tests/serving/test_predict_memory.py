"""However many texts are answered, no more of them are in memory; `-s` prints what was measured."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from er.commands.predict import files_of, rows_of
from er.config import Config
from er.results import Result
from er.serving.predict import Predictor
from er.serving.trained import load_run
from er.tasks import readers

TEXTS = int(os.environ.get("ER_MEMORY_TEXTS", "100000"))
MARGIN = 20 << 20
"""Bytes that the index of the cache (48 an entry) and the allocator may take; the texts alone would be as many."""


def write_jsonl(path: Path, texts: Iterator[str]) -> None:
    with path.open("w") as out:
        out.writelines(json.dumps({"text": text}) + "\n" for text in texts)


def write_csv(path: Path, texts: Iterator[str]) -> None:
    with path.open("w", newline="") as out:
        csv.writer(out).writerows([["text"], *([text] for text in texts)])


def write_parquet(path: Path, texts: Iterator[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": list(texts)}), path, row_group_size=10_000)


WRITERS = {".jsonl": write_jsonl, ".csv": write_csv, ".parquet": write_parquet}


def private() -> int:
    """Return the bytes of memory that are this process's own: what is mapped from the cache is not."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) << 10


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measured as Linux tells it")
@pytest.mark.parametrize("suffix", WRITERS)
def test_memory_does_not_grow_with_the_number_of_texts(
    train: Callable[..., Result], small: Callable[..., Config], tmp_path: Path, suffix: str
) -> None:
    result = train("method=reduced", "cut=2", "optim.epochs=1")
    (folder,) = tmp_path.rglob(f"*-{result.run_id}")
    source = tmp_path / f"new{suffix}"
    WRITERS[suffix](source, (f"text {number} on {number % 97}" for number in range(TEXTS)))

    predictor = Predictor([load_run(folder)], small("predict.chunk=2048"))
    known = readers(predictor.runs[0].config.task)
    sampled: list[Any] = []
    for number, _ in enumerate(predictor.answers(rows_of(files_of(str(source), known), known)), start=1):
        if number % (TEXTS // 10) == 0:
            sampled.append((number, private()))

    said = ", ".join(f"{number:,}: {used / 1e6:.0f}" for number, used in sampled)
    print(f"\n{suffix}: MB after so many texts: {said}")  # noqa: T201
    (_, early), (_, late) = sampled[1], sampled[-1]
    assert late - early < MARGIN
