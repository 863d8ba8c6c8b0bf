"""A file appears whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from er import results


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()

    with pytest.raises(OSError):
        results.write_text(tmp_path / "taken", "content")

    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
