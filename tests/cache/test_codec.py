from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from er.cache.codec import STORAGE, encode
from er.cache.layout import TAGS
from er.cache.store import ActivationCache
from er.choices import StorageDtype
from er.errors import UserError
from tests.cache.corpus import SPACE, Corpus, opened

RELATIVE = {"float32": 0.0, "float16": 2**-11, "bfloat16": 2**-8}
"""Half of the last place that each keeps."""


def test_every_dtype_of_the_configuration_can_be_stored() -> None:
    assert list(STORAGE) == list(TAGS) == [dtype.value for dtype in StorageDtype]


@pytest.mark.parametrize("storage", RELATIVE)
def test_what_is_read_is_what_was_published_to_the_last_place_kept(storage: str, tmp_path: Path) -> None:
    texts, cache = Corpus(), opened(tmp_path, storage)
    cache.publish(texts.keys, texts.lengths, texts.packed(), seconds=1)

    read, _ = opened(tmp_path, storage).packed(cache.locate(texts.keys))

    assert read.dtype == torch.float32
    assert torch.equal(read, texts.packed().to(STORAGE[storage]).float())
    assert ((read - texts.packed()).abs() <= RELATIVE[storage] * texts.packed().abs()).all()


def test_int8_is_off_by_half_a_step_of_its_token_at_most(tmp_path: Path) -> None:
    texts, cache = Corpus(), opened(tmp_path, "int8")
    x = texts.packed() * torch.logspace(-6, 6, int(texts.lengths.sum()))[:, None]
    x[3] = 0
    cache.publish(texts.keys, texts.lengths, x, seconds=1)

    read, _ = cache.packed(cache.locate(texts.keys))

    steps = x.abs().amax(dim=1, keepdim=True) / 127
    assert ((read - x).abs() <= steps * 0.5001).all()


@pytest.mark.parametrize("storage", STORAGE)
def test_activations_come_in_the_dtype_that_is_asked_for(storage: str, tmp_path: Path) -> None:
    texts, cache = Corpus(), opened(tmp_path, storage)
    cache.publish(texts.keys, texts.lengths, texts.packed(), seconds=1)
    where = cache.locate(texts.keys)

    assert cache.read(where, torch.bfloat16).dtype == torch.bfloat16
    assert torch.equal(cache.read(where, torch.float64).float(), cache.read(where))


@pytest.mark.parametrize("value", [65_505.0, -1e30])
def test_what_overflows_float16_is_refused(value: float) -> None:
    x = torch.zeros(3, 4)
    x[1, 2] = value

    with pytest.raises(UserError, match=r"does not fit float16.*cache.dtype=bfloat16"):
        encode(x, "float16")
    encode(x, "bfloat16")
    encode(x.clamp(-65_504, 65_504), "float16")


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(storage: str, value: float, tmp_path: Path) -> None:
    texts, cache = Corpus(), opened(tmp_path, storage)
    x = texts.packed()
    x[5, 3] = value

    with pytest.raises(UserError, match="NaN or infinite"):
        cache.publish(texts.keys, texts.lengths, x, seconds=1)
    assert not list(tmp_path.iterdir())


def test_an_unknown_storage_dtype_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cache.dtype=int4.*float16"):
        opened(tmp_path, "int4")


@pytest.mark.parametrize("storage", STORAGE)
def test_disk_space_is_that_of_the_real_tokens(storage: str, tmp_path: Path) -> None:
    hidden, lengths = 768, torch.full((100,), 55).numpy()
    cache = ActivationCache(tmp_path, replace(SPACE, storage_dtype=storage), hidden)
    raw = int(lengths.sum()) * hidden * 4

    assert cache.size(lengths) <= raw * {"float32": 1.001, "int8": 0.253}.get(storage, 0.501)
