"""Which model a run was trained on: files by their content, hub models by their revision."""

from __future__ import annotations

from pathlib import Path

from er import digests
from er.config import Model
from er.encoders.fingerprint import digest
from er.encoders.locate import PACKAGE, folder, shaped
from er.encoders.packaged import WHEELS
from er.encoders.weights import PICKLED, SAFE


def source(model: Model) -> str:
    """Return what stands for a model's files in a run's identity: an edited file is another model.

    The weights of a local model are hashed, once for each state of the files; those of the hub never change
    within a revision.
    """
    if shaped(model):
        return digest((), model.shape or {})
    if not model.path.startswith((PACKAGE, WHEELS)) and not Path(model.path).expanduser().is_dir():
        return f"{model.path}@{model.revision or 'main'}"
    found = folder(model)
    patterns = ("config.json",) if model.random else ("config.json", *SAFE, *PICKLED)
    return digests.of_files(path for pattern in patterns for path in found.glob(pattern))
