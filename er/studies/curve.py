"""Where to cut: what a few short runs at every layer say, and nothing but arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Probe:
    """A short run at one cut; that at layer 0 recycles nothing, and is what the others are measured against."""

    k: int
    score: float
    """In percent, on dev."""
    step: float
    """Seconds of a training step, reading included."""


def smoothed(scores: Sequence[float]) -> list[float]:
    """Return the scores by cut as a curve that never rises, the closest in the mean square.

    To freeze more can only cost; what looks like a gain is noise, which pooling neighbours takes away.
    """
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(increasing=False).fit_transform(range(len(scores)), scores)
    return [float(score) for score in fitted]


def suggested(probes: Sequence[Probe], loss: float) -> Probe:
    """Return the deepest cut whose smoothed score is at most `loss` points below that of no cut at all.

    The probes come in the order of their cuts. The deepest is also the fastest.
    """
    curve = smoothed([probe.score for probe in probes])
    return max(
        (probe for probe, score in zip(probes, curve, strict=True) if score >= curve[0] - loss),
        key=lambda probe: probe.k,
    )
