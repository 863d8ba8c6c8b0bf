"""Every option composes, and a run's name says what was trained and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from er.checks import cut_layer
from er.config import CONF, Config
from er.errors import UserError
from er.identity import identity, run_dir, run_id

Composed = Callable[..., Config]

GROUPS = ("model", "task", "method", "cache", "optim", "trainer", "logger")
OPTIONS = [f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
FOLDER = CONF / "experiment"
EXPERIMENTS = {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in sorted(FOLDER.rglob("*.yaml"))}
GENERIC = ["model.path=here", "task.path=here"]
"""What `model=hf` and the tasks for one's own data ask of the user; harmless elsewhere."""
SOURCES = {"model": "m", "task": "t"}


def name_of(config: Config, k: int = 3) -> str:
    return str(run_dir(config, run_id(identity(config, k, SOURCES)))).removeprefix(config.paths.runs)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_is_checked(composed: Composed, option: str) -> None:
    config = composed(option, *(GENERIC if option in ("model=hf", "task=classification") else []))

    group, name = option.split("=")
    assert getattr(getattr(config, group), "name", name) == name


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_point_of_a_study_composes_and_is_checked(composed: Composed, name: str) -> None:
    params = OmegaConf.load(EXPERIMENTS[name]).hydra.sweeper.params
    parsed = OverridesParser.create().parse_overrides([f"{option}={params[option]}" for option in params])
    axes = [[f"{axis.key_or_group}={value}" for value in axis.sweep_string_iterator()] for axis in parsed]

    for point in zip_longest(*axes):  # each value of each axis once
        composed(f"experiment={name}", *(value or axis[0] for axis, value in zip(axes, point, strict=True)))


@pytest.mark.parametrize(
    "change",
    [
        "paths.runs=elsewhere",
        "paths.cache=elsewhere",
        "paths.data=elsewhere",
        "trainer=cpu",
        "trainer.progress=false",
        "logger=wandb",
        "on_done=overwrite",
        "cache.segment_mb=1",
        "model.attention=eager",
    ],
)
def test_where_and_how_a_run_happens_is_not_in_its_name(composed: Composed, change: str) -> None:
    assert name_of(composed(change)) == name_of(composed())


@pytest.mark.parametrize(
    "change",
    [
        "task=scicite",
        "model=bert_base",
        "method=reduced",
        "method.head=stock",
        "method.adapter.bottleneck=64",
        "method.adapter.kind=seq_bn",
        "optim.lr=0.5",
        "optim.epochs=99",
        "optim.batch_size=7",
        "seed=1",
        "trainer.precision=bfloat16",
        "cache.dtype=float16",
        "cache.mode=off",
        "task.limit=5",
        "task.max_length=7",
        "task.stride=7",
        "task.max_windows=7",
        "task.max_answer=7",
    ],
)
def test_whatever_changes_the_training_changes_the_name(composed: Composed, change: str) -> None:
    assert name_of(composed(change)) != name_of(composed())


def test_the_cut_and_the_sources_are_in_the_name(composed: Composed) -> None:
    config = composed()

    names = {
        run_id(identity(config, k, {"model": model, "task": task})) for k in (2, 3) for model in "ab" for task in "ab"
    }

    assert len(names) == 8


@given(depth=st.integers(1, 48), data=st.data())
def test_a_cut_is_a_layer_of_the_encoder(depth: int, data: st.DataObject) -> None:
    layer = data.draw(st.integers(0, depth))
    fraction = data.draw(st.floats(0, 1))

    assert cut_layer(layer, depth) == layer
    assert 0 <= cut_layer(fraction, depth) <= depth
    assert cut_layer(0.5, 2 * depth) == depth


@pytest.mark.parametrize(("fraction", "k"), [(0.25, 2), (0.33, 2), (0.5, 3), (0.66, 4), (0.75, 4), (1.0, 6)])
def test_fractions_of_six_layers_are_the_papers(fraction: float, k: int) -> None:
    assert cut_layer(fraction, 6) == k


@pytest.mark.parametrize("cut", [-1, 7, 1.5, -0.1])
def test_a_cut_outside_the_encoder_is_refused(cut: int | float) -> None:
    with pytest.raises(UserError, match=r"6 layers"):
        cut_layer(cut, 6)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model=hf"], "model.path"),
        (["optim.epochs=0"], "optim.epochs=0"),
        (["optim.lr=-1"], "optim.lr=-1"),
        (["task.limit=0"], "task.limit=0"),
        (["task.limit=1.5"], "task.limit=1.5"),
        (["task.limit=few"], "task.limit=few"),
        (["task.stride=-1"], "task.stride=-1"),
        (["task.max_windows=0"], "task.max_windows=0"),
        (["task.max_answer=0"], "task.max_answer=0"),
        (["task.name=../../elsewhere"], r"task.name=\.\./\.\./elsewhere"),
        (["model.name=."], r"model.name=\."),
        (["task.label=text"], "task.label=text"),
        (["optim.lr=nan"], "optim.lr=nan"),
        (["optim.weight_decay=-1"], "optim.weight_decay=-1"),
        (["optim.warmup=-0.5"], "optim.warmup=-0.5"),
        (["optim.clip=nan"], "optim.clip=nan"),
        (["optim.patience=-1"], "optim.patience=-1"),
        (["search.epochs=0"], "search.epochs=0"),
        (["search.examples=0"], "search.examples=0"),
        (["search.loss=-1"], "search.loss=-1"),
        (["cache.segment_mb=0"], "cache.segment_mb=0"),
        (["cache.batch_tokens=0"], "cache.batch_tokens=0"),
        (["trainer.devices=0"], "trainer.devices=0"),
        (["seed=-1"], "seed=-1"),
        (["seed=4294967296"], "seed=4294967296"),
        (["method=reduced_adapters", "method.adapter=null"], "method.adapter"),
    ],
)
def test_impossible_settings_are_named(composed: Composed, overrides: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        composed(*overrides)


def test_runs_of_before_the_best_epoch_could_be_chosen_keep_their_names(composed: Composed) -> None:
    loss, score = (identity(composed(f"optim.monitor={name}"), 3, SOURCES)["optim"] for name in ("loss", "score"))

    assert score == loss | {"monitor": "score"}
