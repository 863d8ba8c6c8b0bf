"""The values of those options that take one of a few."""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    """What a task's examples and answers look like; one module of er/tasks each."""

    classification = "classification"
    pair_classification = "pair_classification"
    tagging = "tagging"
    extractive_qa = "extractive_qa"


class UnseenLabel(Enum):
    """What to do about a label of dev or test that the training split never shows."""

    error = "error"
    wrong = "wrong"


class Encode(Enum):
    """How the two texts of an input run through the layers below the cut."""

    joint = "joint"
    """As one input, each seeing the other: an activation serves this one pair."""
    separate = "separate"
    """Each on its own, joined at the cut: a passage has one activation for all its questions."""


class Trains(Enum):
    """Which weights a method trains, the head apart, which always trains."""

    all = "all"
    adapters = "adapters"
    biases = "biases"
    nothing = "nothing"


class Head(Enum):
    """What stands on top of the encoder."""

    linear = "linear"
    """First token -> Linear(256) -> Linear(classes), as in the paper's code."""
    stock = "stock"
    """The head that `transformers` puts on this architecture."""


class Switch(Enum):
    """What is done with the activations of the frozen layers."""

    on = "on"
    """Those that are known are read, the others are computed and kept."""
    off = "off"
    """All are recomputed."""
    read = "read"
    """Those that are known are read, the others are computed and not kept; for `er predict` only."""


class Monitor(Enum):
    """What of the dev split says which epoch was the best: that one's weights are kept and tested."""

    loss = "loss"
    """As in the paper's code. A model that is too sure of its mistakes has a growing loss while it still learns."""
    score = "score"
    """The task's own measure."""


class StorageDtype(Enum):
    """How activations are stored."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"
    int8 = "int8"


class Precision(Enum):
    """The compute precision, as in Lightning's `precision`."""

    float32 = "32-true"
    bfloat16 = "bf16-mixed"
    float16 = "16-mixed"


class Action(Enum):
    """What `er cache` does."""

    build = "build"
    list = "list"
    verify = "verify"
    prune = "prune"
    compact = "compact"
    push = "push"
    pull = "pull"


class OnDone(Enum):
    """What to do when the run directory already holds a result."""

    skip = "skip"
    overwrite = "overwrite"
    error = "error"
