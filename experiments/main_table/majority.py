"""Are the runs of a folder better than always giving the most frequent answer?   python majority.py runs/rte/minilm_l6

Per method and learning rate: mean accuracy over seeds, its difference from that of the majority, the 95 % interval of
the difference from resampled test examples, and p of approximate randomisation.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from er import results
from er.statistics import paired_bootstrap, predictions, scores

groups: dict[tuple[str, float], list[Path]] = defaultdict(list)
for file in sorted(Path(sys.argv[1]).glob(f"*/{results.NAME}")):
    config = results.read(file).config
    groups[config["method"]["name"], config["optim"]["lr"]].append(file.parent / "predictions.jsonl")

for (method, rate), files in groups.items():
    runs = [predictions(file) for file in files]
    gold = [row["label"] for row in runs[0]]
    most = Counter(gold).most_common(1)[0][0]
    majority = np.array([label == most for label in gold], dtype=float)
    mean = np.mean([scores(run) for run in runs], axis=0)
    found = paired_bootstrap(mean, majority)
    dev = np.mean([results.read(file.parent / results.NAME).metrics["dev/accuracy"] for file in files])
    sys.stdout.write(
        f"{method} lr={rate:g}: {len(runs)} seeds, dev {100 * dev:.1f}, test {100 * mean.mean():.1f}, majority "
        f"{100 * majority.mean():.1f}, better by {100 * found.mean:.1f} "
        f"[{100 * found.low:.1f}, {100 * found.high:.1f}], p = {found.p:.4f}\n"
    )
