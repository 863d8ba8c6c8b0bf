"""How figures look: one restrained palette, which the page can exchange for its dark one."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, SOFT, MUTED, GRID, AXIS, SURFACE = "#0b0b0b", "#52514e", "#7b7974", "#e6e5de", "#c3c2b7", "#fcfcfb"

ARMS = {"online": "#8c8a82", "frozen": "#d9602c", "recycled": "#2a78d6"}
"""One colour an arm, in every figure; told apart by those who see no red or green, too."""

PHASES = {"build": "#d89a00", "read": "#e58fb3", "train": "#4a3aa7", "evaluate": "#b9b4d9"}

NAMES = {INK: "ink", SOFT: "soft", MUTED: "muted", GRID: "grid", AXIS: "axis", SURFACE: "surface"}
NAMES |= {color: name for colors in (ARMS, PHASES) for name, color in colors.items()}

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "text.parse_math": False,
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "er",
    "text.color": INK,
    "axes.edgecolor": AXIS,
    "axes.facecolor": SURFACE,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titlecolor": INK,
    "axes.titlepad": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": AXIS,
    "ytick.color": AXIS,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "figure.facecolor": SURFACE,
    "figure.constrained_layout.w_pad": 0.1,
    "lines.linewidth": 2,
    "lines.markersize": 8,
}

FONTS = "system-ui, -apple-system, 'Segoe UI', sans-serif"


@contextmanager
def panel(title: str, width: float = 4.6, height: float = 3.2) -> Iterator[tuple[Figure, Axes]]:
    """Yield an empty figure in this style; leave the style behind."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title)
        axes.locator_params(nbins=5)
        yield figure, axes


def rendered(figure: Figure, alternative: str) -> tuple[str, bytes]:
    """Return a figure as SVG, whose colours a page can set by name, and as PNG."""
    vector, raster = io.StringIO(), io.BytesIO()
    with matplotlib.rc_context(STYLE):
        engine = figure.get_layout_engine()
        assert engine is not None
        engine.execute(figure)
        figure.set_layout_engine(None)  # what is laid out need not be again, nor drawn twice, for either file
        figure.savefig(raster, format="png", dpi=120, pil_kwargs={"compress_level": 3})
        figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
    return _themed(vector.getvalue(), alternative), raster.getvalue()


def _themed(svg: str, alternative: str) -> str:
    """Name the colours, let the text have the page's font, and say to those who cannot see it what is shown."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r' id="(?:figure|axes|patch|text|line2d|matplotlib\.axis|xtick|ytick|LineCollection|legend)_\d+"', "", svg
    )
    for color, name in NAMES.items():
        svg = svg.replace(color, f"var(--{name}, {color})")
    svg = re.sub(r"font-family: [^;\"]*", f"font-family: {FONTS}", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alternative)}" ', 1)
