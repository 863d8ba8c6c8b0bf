"""A record says what its times were taken on, and appears whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from er import results


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()

    with pytest.raises(OSError):
        results.write_text(tmp_path / "taken", "content")

    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_the_cores_of_a_record_are_no_more_than_the_threads_that_compute() -> None:
    torch.set_num_threads(1)  # as of a run to which a launcher gives one of several cores

    assert results.environment("cpu")["cpus"] == 1
