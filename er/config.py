"""The schema of conf/: what may be set, of which type, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from er.choices import Action, Encode, Head, Kind, Monitor, OnDone, Precision, StorageDtype, Switch, Trains, UnseenLabel

HERE = Path(__file__).resolve().parent
CONF = HERE / "conf" if (HERE / "conf").is_dir() else HERE.parent / "conf"
"""The configuration folder: inside an installed package, beside it in a checkout."""


@dataclass
class Model:
    """The encoder, and where its weights come from."""

    name: str = MISSING
    path: str = MISSING
    """A local directory, a hub id, or `pkg://package/folder` for weights that a Python package ships."""
    revision: str | None = None
    """Pinned commit of a hub id: a moved branch must not silently change what is trained."""
    attention: str = "sdpa"
    """`attn_implementation`, always passed on so that no config file can choose it."""
    random: bool = False
    """Random weights of this architecture, from `shape` or `config.json` alone: for timing, never for accuracy."""
    shape: dict[str, Any] | None = None
    """What the `config.json` of a hub model says of its architecture, so that it can be timed without any download."""


@dataclass
class Task:
    """What is to be learned, and from which texts."""

    name: str = MISSING
    kind: Kind = MISSING
    path: str | None = None
    """A directory with `train`, `dev` and `test` files, a clone of a hub data set, or a hub id."""
    folder: str | None = None
    """The folder below `paths.data` that holds this task; used instead of `path` when `paths.data` is set."""
    builtin: str | None = None
    """A text source that comes with the package (`stdlib_docs`); needs neither `path` nor `folder`."""
    config: str | None = None
    """The hub data set's configuration, where it has several."""
    revision: str | None = None
    """Pinned commit of the hub data set."""
    text: list[str] = field(default_factory=lambda: ["text"])
    """The columns that hold the text: one, or two for a pair; the tokens; or a question and its passage."""
    label: str = "label"
    """The column that holds the answer."""
    columns: list[str] | None = None
    """Names for the columns of `.tsv`, `.csv` and tab-separated `.txt` files that have no header."""
    label_names: list[str] | None = None
    """What the labels 0, 1, ... stand for, where the files hold numbers."""
    hub_text: list[str] | None = None
    """The same columns on the hub, where their names differ from the files'."""
    hub_label: str | None = None
    hub_splits: dict[str, str] | None = None
    """The hub's name of each split that is read: `{train: train, dev: validation_matched}`."""
    unseen_label: UnseenLabel = UnseenLabel.error
    max_length: int = 512
    """Tokens; longer inputs are truncated, and counted, or where each token matters cut into windows."""
    stride: int = 128
    """Tokens that neighbouring windows of a long input share; half a window at most."""
    max_windows: int | None = None
    """At most so many windows of a passage; what lies behind them is not read."""
    max_answer: int = 30
    """Tokens that an extracted answer may have."""
    encode: Encode = Encode.joint
    """Whether a question and its passage, or the texts of a pair, see each other below the cut."""
    offset: int | None = None
    """Tokens kept free before the second text where task.encode=separate.

    By default the longest first text of the data with its special tokens, which may take a quarter (QA) or half (pairs)
    of task.max_length.
    """
    limit: Any = None  # a number, as with cuts
    """At most so many training examples, for a quick look; a fraction (`0.1`) takes such a part of them."""


@dataclass
class Adapter:
    """The adapter that a method puts above the cut."""

    kind: str = "double_seq_bn"
    """A configuration name of the `adapters` library; the paper's is two bottlenecks a layer."""
    bottleneck: int = 256
    """Width of the bottleneck, as an absolute dimension (paper: 256)."""


@dataclass
class Source:
    """The model whose activations are added to the embeddings of the one that trains."""

    model: Model = field(default_factory=Model)
    cut: Any = 1.0  # a number, as everywhere; OmegaConf cannot hold one of either type this deep
    """Which activations: a layer, or a fraction of the layers; by default those of the last."""
    width: int = 1024
    """Of the projection's middle, as in the paper's code."""
    scale: float = 0.1
    """Factor of what is added, as in the paper's code."""


@dataclass
class Method:
    """What is frozen, what is cached, what trains."""

    name: str = MISSING
    cut: Any = MISSING  # a number
    """Where the frozen part ends: `${cut}`, or fixed where the method itself says."""
    trains: Trains = MISSING
    """What trains above the cut."""
    recycles: bool = MISSING
    """Whether the layers below the cut are frozen, so that their activations can be cached."""
    adapter: Adapter | None = None
    source: Source | None = None
    """Where the cached activations are another model's; then `cut` only says what is frozen of the one that trains."""
    head: Head = Head.linear


@dataclass
class Cache:
    """How activations are kept."""

    mode: Switch = Switch.on
    """`off` recomputes the frozen layers in every step: the `frozen` arm."""
    dtype: StorageDtype = StorageDtype.float32
    segment_mb: int = 64
    """Size at which a segment is published: what a killed builder can lose."""
    batch_tokens: int = 8192
    """Padded tokens in one batch of the build."""
    max_bytes: str | None = None
    """What `paths.cache` may hold in all (`50GB`): a build or a pull that would not fit is refused before it begins."""


@dataclass
class Optim:
    """The optimiser's settings: all of them are part of the run."""

    name: str = MISSING
    epochs: int = MISSING
    batch_size: int = MISSING
    lr: float = MISSING
    weight_decay: float = MISSING
    warmup: float = MISSING
    """Warm-up of the linear schedule: a fraction of all steps, or, from 1 on, so many steps."""
    patience: int | None = None
    """Epochs without a better one, by `monitor`, before training stops; `null` trains to the end."""
    monitor: Monitor = Monitor.loss
    clip: float | None = None
    """Largest gradient norm."""
    order: int | None = None
    """The seed of the batches' order, where it is not the run's: runs of several seeds can then share batches."""


@dataclass
class Trainer:
    """The hardware, and how it is used."""

    name: str = MISSING
    accelerator: str = "auto"
    devices: int = 1
    precision: Precision = Precision.float32
    """Part of the run and of the cache key: activations computed in bfloat16 are other activations."""
    checkpoint_s: float = 60.0
    """Seconds between two checkpoints, what a killed run may have to repeat; longer if saving took over 5 % of it.

    With 0 every step is saved.
    """
    progress: bool = True
    deterministic: bool = True


@dataclass
class Logger:
    """Where a copy of the results goes."""

    name: str = MISSING
    """`none`, `csv` or `wandb`: a mirror of `result.json`, never its source."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the Lightning logger (for `wandb`: project, group, entity, offline, ...)."""


@dataclass
class Paths:
    """Where data comes from, and where activations and results go."""

    data: str | None = None
    """Local data sets, one folder each; without it tasks come from the hub."""
    cache: str = MISSING
    runs: str = MISSING


@dataclass
class Bench:
    """What `er bench` compares, on what, and for how long."""

    arms: list[str] = field(default_factory=lambda: ["finetune", "frozen", "recycled", "ram"])
    """Also `adapters`, the method's adapters in all layers without recycling, and `cold`, recycled from a cold disk."""
    batches: int = 48
    """Rounds: in each, every arm does the same batch. The median of so many ratios is steady on a busy machine."""
    warmup: int = 3
    """Rounds at the start that are not counted."""
    inference_batch_size: int = 64
    """For training it is `optim.batch_size`."""
    tokens: list[int] | None = None
    """Inputs of random tokens, so many each (`[128]`) or evenly spread (`[40,400]`), instead of the task's texts.

    A model of which only the shape is at hand has no tokenizer: then it is `[64]`.
    """


@dataclass
class Plan:
    """Where the timings come from that `er plan` reckons with."""

    profile: str | None = None
    """A machine's timings, by their file or their name in `paths.cache/profiles`; by default those of this machine."""
    again: bool = False
    """Time anew what is known of this machine, and keep that instead."""


@dataclass
class Search:
    """What `er search-cut` spends on every cut, and what a cut may cost."""

    loss: float = 1.0
    """Points of the dev score that may be lost against the whole model."""
    examples: int = 1000
    """At most so many of the training split, in every short run."""
    epochs: int = 3
    cuts: Any = None  # a list of numbers, which OmegaConf has no type for
    """The cuts to probe; by default every layer."""


@dataclass
class Report:
    """What `er report` tabulates, and where to."""

    rows: Any = field(default_factory=lambda: ["task", "model"])  # one field or a list, which OmegaConf has no type for
    """Of the pivots: columns of `runs.csv`, or dotted paths into a run's configuration (`optim.lr`)."""
    columns: Any = field(default_factory=lambda: ["method", "cut", "arm", "storage"])
    values: Any = field(default_factory=lambda: ["score", "warm", "cold"])
    """One pivot each. `score` is accuracy, entity F1 or answer F1, whichever the task has; `dev` is that on dev."""
    figures: int = 6
    """At most so many of each kind, one for each model and task."""
    pending: bool = False
    """Only print the commands of what is still to be run."""
    to: str | None = None
    """The folder to write to; by default beside the runs."""


@dataclass
class Predict:
    """How `er predict` goes through its input."""

    batch_size: int = 64
    chunk: int = 4096
    """Texts that are in memory at once."""
    text: list[str] | None = None
    """The columns that hold the text, where they are not named as those that the run was trained on."""


@dataclass
class Config:
    """All that can be set; every verb reads the part that it needs."""

    model: Model = field(default_factory=Model)
    task: Task = field(default_factory=Task)
    method: Method = field(default_factory=Method)
    cache: Cache = field(default_factory=Cache)
    optim: Optim = field(default_factory=Optim)
    trainer: Trainer = field(default_factory=Trainer)
    logger: Logger = field(default_factory=Logger)
    paths: Paths = field(default_factory=Paths)
    bench: Bench = field(default_factory=Bench)
    plan: Plan = field(default_factory=Plan)
    search: Search = field(default_factory=Search)
    report: Report = field(default_factory=Report)
    predict: Predict = field(default_factory=Predict)
    cut: Any = 0.5  # a number, or a list of them, which OmegaConf has no type for
    """The cut layer: a layer (`6`) or a fraction of the layers (`0.5`); for `er cache` several (`[3,6,9]`), too."""
    run: Any = None  # one folder or a list, which OmegaConf has no type for
    """`predict`, `export`, `prune`: the folder of a finished run; but for `export` several (`[A,B]`), too."""
    input: str | None = None
    """`predict`, `prune`: a file of texts, or a folder of them; for `predict` also `-`, JSON lines from a pipe."""
    output: str | None = None
    """`predict`: the file of JSON lines that is written, or `-` for standard output."""
    to: str | None = None
    """`export`: the folder that is written."""
    overwrite: bool = False
    """`predict`, `export`: replace what is there."""
    seed: int = 0
    on_done: OnDone = OnDone.skip
    together: int = 1
    """`train -m`: so many runs that read the same activations are done at once in one process, from one reading."""
    points: str | None = None
    """`train`: the runs that a sweep does together, as JSON; it sets this itself."""
    skip_invalid: bool = False
    """In a sweep: leave out points that cannot be run, rather than begin none."""
    action: Action = Action.build
    """What `er cache` does; no other verb reads it, nor any of these:"""
    space: str | None = None
    """The one space that is meant, by the beginning of its name; without it all are."""
    repair: bool = False
    """`verify`: drop what is damaged."""
    older_than: str | None = None
    """`prune`: spaces that nobody has used for so long (`30d`)."""
    max_bytes: str | None = None
    """`prune`: spaces, the one used longest ago first, until the cache is no larger (`50GB`)."""
    dry_run: bool = False
    """`prune`: only say what would be deleted."""
    url: str | None = None
    """`push`, `pull`: where to, where from; whatever fsspec knows (`s3://bucket/folder`, `file:///mnt/share`)."""


ConfigStore.instance().store(name="schema", node=Config)


def _paper(field: str, *, _root_: DictConfig) -> Any:
    from er import paper  # it reads this schema

    return paper.setting(field, _root_).value


OmegaConf.register_new_resolver("paper", _paper, replace=True)
