"""How much memory a run has taken at most."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

PROCESS = Path("/proc/self")


def reset(device: torch.device) -> None:
    """Forget what was taken before, by an earlier run of the same process for instance, where the system can."""
    with suppress(OSError):
        (PROCESS / "clear_refs").write_text("5")  # Linux: the peak becomes what is held now
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peaks(device: torch.device) -> dict[str, int]:
    """Return the most bytes that this process had resident, mapped files included, and allocated on its accelerator."""
    found = {"rss": _resident()}
    if device.type == "cuda":
        found["device"] = torch.cuda.max_memory_allocated(device)
    return found


def _resident() -> int:
    with suppress(OSError):
        for line in (PROCESS / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
