"""Progress bars, with the time that is left; where no terminal shows them, a log is not flooded."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(**options: Any) -> tqdm[Any]:
    """Return a bar of tqdm; its `options` are tqdm's."""
    return tqdm(mininterval=0.5 if sys.stderr.isatty() else 30, **options)
