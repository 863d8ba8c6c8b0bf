"""A run that finds everything in the cache never holds the lower layers: not in memory, and not for its fingerprint."""

from __future__ import annotations

import gc
import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModel

from er.config import Config
from er.encoders import fingerprint
from er.encoders.load import model_class
from er.tasks import load_task
from er.testing import tiny_tokenizer
from er.training.methods import assemble
from er.training.module import RecyclingModule
from er.training.recycle import open_cache, recycle
from er.training.run import run, tokenized

log = logging.getLogger(__name__)

Small = Callable[..., Config]

CPU = torch.device("cpu")
XLARGE: dict[str, Any] = {
    "type_vocab_size": 0,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "attention_head_size": 64,
    "conv_kernel_size": 3,
    "conv_act": "gelu",
}
"""What DeBERTa-v2-XL has besides its size."""

LOWER = 12 * 28.3e6 * 4
"""Bytes of its lower twelve layers; of the embeddings below them only the rows of the words at hand are ever held."""

ARMS = {
    "build": [],
    "frozen": ["cache.mode=off"],
    "recycled": ["seed=1"],
}
"""The first fills the cache for the last, which is another run by its seed."""

linux = pytest.mark.skipif(
    not Path("/proc/self/smaps").exists(), reason="only Linux says which pages of a file are held"
)


def deberta(path: Path, layers: int, hidden: int, vocabulary: int) -> Path:
    """Write a checkpoint of this shape with random weights, without drawing more of them than is needed."""
    config = CONFIG_MAPPING["deberta-v2"](
        **XLARGE,
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
    )
    with torch.device("meta"):
        model = model_class(AutoModel, config)(config)
    model.to_empty(device="cpu")
    noise = torch.randn(1 << 20).mul_(0.02)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            repeated = noise.repeat(weight.numel() // len(noise) + 1)[: weight.numel()].view_as(weight)
            weight.copy_(torch.ones_like(weight) if name.endswith("LayerNorm.weight") else repeated)
        for buffer in model.buffers():
            buffer.copy_(torch.arange(buffer.numel()).view_as(buffer))
    model.save_pretrained(path, max_shard_size="20GB")
    tiny_tokenizer(config).save_pretrained(path)
    return path


def resident(file: Path) -> int:
    """Return how many bytes of a mapped file this process holds in memory."""
    held, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(str(file))
        elif inside and line.startswith("Rss:"):
            held += int(line.split()[1]) * 1024
    return held


@linux
@pytest.mark.parametrize("method", ["reduced", "reduced_adapters"])
def test_weights_below_the_cut_are_not_touched_where_everything_hits(small: Small, tmp_path: Path, method: str) -> None:
    path = deberta(tmp_path / "deberta", layers=8, hidden=256, vocabulary=60_000)
    file = path / "model.safetensors"
    config = small(f"model.path={path}", "model.attention=eager", f"method={method}", "cut=4", "optim.epochs=1")
    run(config)
    gc.collect()
    assert resident(file) == 0

    task = load_task(config.task, None)
    splits = tokenized(config, task)
    parts = assemble(config, 4, task)
    assert parts.lower is not None
    below = {p.data_ptr(): p.nbytes for p in parts.lower.parameters()}
    above = {p.data_ptr(): p.nbytes for p in parts.upper.parameters() if p.data_ptr() not in below}
    lower, upper = sum(below.values()), sum(above.values())
    before = resident(file)
    built = recycle(open_cache(config, parts.lower), parts.lower, splits, config, CPU)
    fingerprinted, parts.lower = resident(file), None
    module = RecyclingModule(parts, task, config.optim)
    batch = splits["train"].batch(list(range(8)))
    module.loss(module(batch), batch["labels"]).backward()
    stepped = resident(file)

    assert built.misses == 0 and lower > 70e6
    assert before < 0.15 * lower, "loading maps the weights, and reads none"
    assert fingerprinted - before < 0.05 * lower, "the fingerprint is taken from the file"
    assert stepped < 1.2 * upper + 0.2 * lower
    whole = assemble(config, 4, task).lower
    assert whole is not None and fingerprint(whole) == fingerprint(whole, stored=True)
    assert resident(file) > lower, "weights that are read are held: this test would see it"


@pytest.mark.slow
@linux
def test_a_recycled_run_of_the_largest_shape_saves_the_memory_of_its_lower_half(tmp_path: Path, words: Path) -> None:
    """DeBERTa-v2-XL, 24 x 1536 in float32, cut in the middle, adapters above: the peaks of whole processes."""
    path = deberta(tmp_path / "xlarge", layers=24, hidden=1536, vocabulary=128_100)
    options = ["task=classification", f"task.path={words}", "task.limit=8", "trainer=cpu", "trainer.progress=false"]
    options += ["model=hf", f"model.path={path}", "model.attention=eager", "method=reduced_adapters", "cut=0.5"]
    options += ["optim.epochs=1", "optim.batch_size=4", f"paths.cache={tmp_path}/cache", f"paths.runs={tmp_path}/runs"]

    peaks = {name: peak(*options, *more) for name, more in ARMS.items()}
    log.info("peak resident bytes: %s", peaks)
    assert peaks["frozen"] - peaks["recycled"] > 0.95 * LOWER, peaks


def peak(*options: str) -> int:
    """Run `er train`, and return the most memory that it held, which the kernel keeps count of.

    It is read while the process lives: what is left of it afterwards counts what its parent held, too.
    """
    held = 0
    with subprocess.Popen([sys.executable, "-m", "er", "train", *options]) as process:
        while process.poll() is None:
            found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
            held = int(found[1]) * 1024 if found else held
            time.sleep(0.02)
    assert process.returncode == 0
    return held
