"""From what the user calls a model to a folder of files, and the refusal of files that would run code."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from tqdm import tqdm

from er.config import Model
from er.encoders.packaged import WHEELS, checkpoint
from er.errors import UserError

PACKAGE = "pkg://"
CONFIG = "config.json"
TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model")


class _Silent(tqdm):
    """Counts the files of a download; the bar of each file says enough."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "disable": True})


def folder(model: Model, files: tuple[str, ...] = ()) -> Path:
    """Return the folder that holds a model, after fetching its configuration and `files` if it comes from the hub."""
    if model.path.startswith(PACKAGE):
        found = _shipped(model.path)
    elif model.path.startswith(WHEELS):
        found = checkpoint(model.path)
    elif Path(model.path).expanduser().is_dir():
        found = Path(model.path).expanduser()
    else:
        found = _fetched(model, files)
    if not (found / CONFIG).is_file():
        raise UserError(f"{found} has no config.json, so it holds no model. Set model.path to a folder that has one.")
    return found


def shaped(model: Model) -> bool:
    """Tell whether the model is one of random weights whose shape its own YAML gives."""
    return model.random and model.shape is not None and not Path(model.path).expanduser().is_dir()


def settings(model: Model) -> tuple[dict[str, Any], Path]:
    """Return what a model's `config.json` says, as plain data that cannot run anything, and the file itself.

    For random weights, the shape that the model's own YAML gives is enough.
    """
    if shaped(model):
        return dict(model.shape or {}), Path(f"conf/model/{model.name}.yaml")
    path = folder(model) / CONFIG
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}). Restore the file from where the model came from.") from error
    if not isinstance(said, dict):
        raise UserError(f"{path} holds a {type(said).__name__}, not a model's configuration. Restore the file.")
    refuse_code(said, path)
    return said, path


def refuse_code(said: Mapping[str, Any], path: Path) -> None:
    """Raise if a configuration names code: `transformers` 4 runs some of it without asking (CVE-2026-4372)."""
    for name, value in said.items():
        inner_choice = name.startswith("_attn_implementation") and not isinstance(value, bool)  # a mere flag is common
        kernel = name == "attn_implementation" and "/" in json.dumps(value)
        if name == "auto_map" or inner_choice or kernel:
            raise UserError(
                f"{path} sets {name!r} to {value!r}: loading it could download and run somebody's code. "
                "Nothing was loaded. If you trust the weights, remove that line from a copy of the model."
            )
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                refuse_code(inner, path)


def _shipped(path: str) -> Path:
    package, _, inside = path.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        name = package.replace("_", "-")
        raise UserError(f"model.path={path}: the package {package!r} is not installed. Run `pip install {name}`.")
    found = Path(spec.submodule_search_locations[0]) / inside
    if not found.is_dir():
        raise UserError(f"model.path={path}: the installed package has no folder {inside!r}. Check model.path.")
    return found


def _fetched(model: Model, files: tuple[str, ...]) -> Path:
    name = model.path
    if name.startswith(("/", ".", "~")) or name.count("/") > 1 or Path(name).exists():
        raise UserError(f"model.path={name} is no folder. Give the folder that holds the model's config.json.")
    try:
        options: dict[str, Any] = {"revision": model.revision, "tqdm_class": _Silent}
        return Path(snapshot_download(name, allow_patterns=[CONFIG, *files], **options))
    except (OSError, ValueError) as error:
        revision = model.revision or "main"
        raise UserError(
            f"model.path={name} is no folder, nor to be had from the hub (revision {revision}): {_first(error)} Check "
            "the name, go online once, or set model.path to a local copy."
        ) from error


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") + "." if lines else type(error).__name__
