from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from er.cache import amounts
from er.cache.quota import check_quota
from er.cache.spaces import size
from er.errors import UserError
from tests.cache.corpus import Corpus, opened


@pytest.mark.parametrize(
    ("text", "bytes"),
    [("0", 0), ("123", 123), ("50GB", 50 * 10**9), ("50gb", 50 * 10**9), ("1.5 MiB", 3 << 19), ("2k", 2000)],
)
def test_a_size_is_what_it_says(text: str, bytes: int) -> None:
    assert amounts.size(text, "max_bytes") == bytes


@pytest.mark.parametrize(("text", "seconds"), [("30d", 30 * 86400), ("1.5h", 5400), ("90min", 5400), ("2W", 1209600)])
def test_an_age_is_what_it_says(text: str, seconds: float) -> None:
    assert amounts.age(text, "older_than") == seconds


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1 parsec", "nan", "inf", "1e3", "1,5GB"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match=r"max_bytes=.*max_bytes=50GB"):
        amounts.size(text, "max_bytes")


@pytest.mark.parametrize("text", ["30", "", "d", "-1d", "1 fortnight"])
def test_an_age_needs_a_unit(text: str) -> None:
    with pytest.raises(UserError, match=r"older_than=.*older_than=30d"):
        amounts.age(text, "older_than")


@given(amount=st.integers(0, 10**4), unit=st.sampled_from(sorted(amounts.SIZES)))
def test_every_unit_scales(amount: int, unit: str) -> None:
    assert amounts.size(f"{amount}{unit}", "x") == pytest.approx(amount * amounts.SIZES[unit])


def test_everything_in_the_cache_counts(tmp_path: Path) -> None:
    texts = Corpus(30)
    for storage in ("float32", "int8"):
        opened(tmp_path, storage).publish(texts.keys, texts.lengths, texts.packed(), seconds=1)
    (tmp_path / "notes.txt").write_text("x" * 100)
    held = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())

    assert size(tmp_path) == held
    check_quota(tmp_path, 1000, str(held + 1000))
    with pytest.raises(UserError, match=rf"max_bytes={held + 999}.*action=prune max_bytes={held - 1}"):
        check_quota(tmp_path, 1000, str(held + 999))


def test_without_a_quota_or_a_need_nothing_is_refused(tmp_path: Path) -> None:
    check_quota(tmp_path / "nothing", 10**18, None)
    check_quota(tmp_path / "nothing", 0, "0")
    with pytest.raises(UserError, match=r"cache\.max_bytes=0"):
        check_quota(tmp_path / "nothing", 1, "0")
