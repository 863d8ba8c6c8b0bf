"""How much a cache may hold, as its owner wants it: told before a build, not by a full disk."""

from __future__ import annotations

from pathlib import Path

from er.cache import amounts
from er.cache.spaces import size
from er.errors import UserError


def check_quota(root: Path, need: int, limit: str | None) -> None:
    """Refuse to add `need` bytes where all that lies in the cache would then be more than `limit` (`50GB`)."""
    if limit is None or not need:
        return
    allowed, held = amounts.size(limit, "cache.max_bytes"), size(root)
    if held + need > allowed:
        raise UserError(
            f"{need / 1e9:,.2f} GB more do not fit: {root} holds {held / 1e9:,.2f} GB, and cache.max_bytes={limit}. "
            f"Make room with `er cache action=prune max_bytes={max(0, allowed - need)}`, which deletes what was used "
            "longest ago, or raise cache.max_bytes, or choose a smaller cache.dtype or task.limit."
        )
