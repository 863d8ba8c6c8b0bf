"""Tokenised splits on disk: a second run over the same examples with the same tokenizer finds them there."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from er import digests
from er.tasks.task import SPLITS
from er.tasks.tokens import quiet

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

FORMAT = 2
"""Raise it when the code that makes features changes what they hold."""

CHECK = "digest"
"""The file that holds the digest of all the others: a changed byte is another text."""


def key(tokenizer: PreTrainedTokenizerBase, *said: Any) -> str | None:
    """Hash all that features depend on; `None` for a slow tokenizer, which does not say what it is."""
    if not tokenizer.is_fast:
        return None
    tokenizer.backend_tokenizer.no_truncation()  # part of what it says, and left over from its last use
    tokenizer.backend_tokenizer.no_padding()
    state = [tokenizer.backend_tokenizer.to_str(), tokenizer.model_max_length]
    versions = [FORMAT, version("transformers"), version("tokenizers")]
    text = json.dumps([versions, state, *said], default=lambda enum: enum.value)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def kept(folder: Path | None, name: str | None, make: Callable[[], dict[str, Dataset]]) -> dict[str, Dataset]:
    """Return the features of every split: those in `folder` of this name, or else new ones, which are left there."""
    if folder is None or name is None:
        return make()
    found = _read(folder / name)
    if found is not None:
        return found
    features = make()
    try:
        _write(folder / name, features)
    except OSError as error:
        log.warning("Tokenised texts are not kept in %s: %s.", folder, error.strerror or error)
    return features


def _read(place: Path) -> dict[str, Dataset] | None:
    from datasets import Dataset

    if not place.is_dir():
        return None
    check = place / CHECK
    if not check.is_file() or check.read_text() != _digest(place):
        log.warning("%s is damaged: it is made anew.", place)
        shutil.rmtree(place)
        return None
    with quiet():
        return {split: Dataset.load_from_disk(str(place / split)) for split in SPLITS if (place / split).is_dir()}


def _write(place: Path, features: dict[str, Dataset]) -> None:
    """Put all splits there at once, unless another run was faster."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=place.parent, ignore_cleanup_errors=True) as made:
        with quiet():
            for split, rows in features.items():
                rows.save_to_disk(f"{made}/{place.name}/{split}")
        whole = Path(made) / place.name
        (whole / CHECK).write_text(_digest(whole))
        try:
            whole.rename(place)
        except OSError:  # which one depends on the system
            if not place.is_dir():
                raise


def _digest(place: Path) -> str:
    files = sorted(path for path in place.rglob("*") if path.is_file() and path.name != CHECK)
    each = [f"{path.relative_to(place)}:{digests.of_files([path])}" for path in files]
    return hashlib.blake2b("\n".join(each).encode(), digest_size=16).hexdigest()
