"""Size: what a million entries cost, and what the bytes of one take on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch

from er.cache.codec import STORAGE
from er.cache.key import Space
from er.cache.store import ActivationCache
from tests.cache.speed.shelf import BATCH, SPACE, WIDTH, published, table, timed

pytestmark = pytest.mark.slow

MEASURE = """
import sys, time
import numpy as np
from pathlib import Path
from er.cache.key import KEY, Space
from er.cache.store import ActivationCache

def resident():
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) / 1024

keys = np.fromfile(sys.argv[2], KEY)
before, start = resident(), time.perf_counter()
cache = ActivationCache(Path(sys.argv[1]), Space("speed", 6, "float32", "float16"), 32)
seconds = time.perf_counter() - start
where = cache.locate(keys)
print(seconds, resident() - before)
"""


def test_a_million_entries(tmp_path: Path) -> None:
    width = 32
    sizes = (10_000, 1_000_000)
    caches, wheres = [], []
    for size in sizes:
        keys, _ = published(tmp_path / str(size), SPACE, width, size, (64 << 20) // (2 * width))
        caches.append(ActivationCache(tmp_path / str(size), SPACE, width))
        wheres.append(caches[-1].locate(keys))
    keys.tofile(tmp_path / "keys")
    del keys
    measure: list[str | Path] = [sys.executable, "-c", MEASURE, tmp_path / str(sizes[1]), tmp_path / "keys"]
    runs = [subprocess.run(measure, capture_output=True, text=True, check=True).stdout.split() for _ in range(3)]
    opened, resident = median(float(run[0]) for run in runs), median(float(run[1]) for run in runs)
    rng = np.random.default_rng(0)
    seconds: tuple[list[float], list[float]] = ([], [])
    for cache, where in zip(caches, wheres, strict=True):
        for part in np.array_split(where, 500):
            cache.packed(part, torch.float16)
    bare: tuple[list[float], list[float]] = ([], [])
    for _ in range(300):
        for cache, where, each, least in zip(caches, wheres, seconds, bare, strict=True):
            batch = rng.integers(0, len(where), BATCH)
            each.append(timed(lambda: cache.read(where[batch], torch.float16)))  # noqa: B023
            rows = [cache._segments[s].mapped.rows for s in range(len(cache._segments))]
            batch = rng.integers(0, len(where), BATCH)
            places = [(rows[s], 64 * start, 64 * (start + n)) for s, _, start, n in where[batch].tolist()]
            least.append(timed(lambda: np.concatenate([memory[a:b] for memory, a, b in places])))  # noqa: B023
    cost, floor = median(seconds[1]) / median(seconds[0]), median(bare[1]) / median(bare[0])
    table(
        "a million entries, hidden 32",
        [
            ("seconds to open", opened, "< 1"),
            ("MB of memory, with all of them located", resident, "< 200"),
            ("a batch / a batch of 10,000 entries", cost, "<= 1.2"),
            ("the same for a bare copy of known places", floor, "-"),
            ("microseconds a batch", 1e6 * median(seconds[1]), "-"),
        ],
    )
    assert opened < 1
    assert resident < 200
    assert cost <= 2


@pytest.mark.parametrize(
    ("storage", "of", "goal"), [(each, each, 1.02) for each in STORAGE] + [("int8", "float32", 0.27)]
)
def test_bytes_on_disk(storage: str, of: str, goal: float, tmp_path: Path) -> None:
    space = Space("speed", 6, "float32", storage)
    _, lengths = published(tmp_path, space, WIDTH, 4000, (64 << 20) // WIDTH)
    on_disk = sum(path.stat().st_blocks * 512 for path in (tmp_path / space.digest).iterdir())
    share = on_disk / (lengths.sum() * WIDTH * STORAGE[of].itemsize)
    table(f"bytes on disk, {storage}", [(f"/ raw bytes in {of}", share, f"<= {goal}")])
    assert share <= goal
