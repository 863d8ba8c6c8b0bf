"""The points of a sweep are those that Hydra launches, and each is what Hydra composes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

from er.config import CONF
from er.studies.grid import composed, composing, points

FOLDER = CONF / "experiment"
STUDIES = [path.relative_to(FOLDER).with_suffix("").as_posix() for path in sorted(FOLDER.rglob("*.yaml"))]

ASKED = [
    ["seed=0,1,2", "method=reduced,probe", "cut=0.5"],
    ["seed=range(3)", "optim.lr=1e-3,1e-4"],
    ["task.text=[a,b],[c]", "task.label='x y','z'"],
    ["experiment=quickstart", "seed=3,4", "arm=finetune"],
    ["experiment=quickstart,scicite_arms"],
    ["model=glob(minilm_l6_*)"],
    ["seed=1"],
]


class Listed:
    """A launcher that only lists what it is to launch."""

    def __init__(self) -> None:
        self.jobs: list[list[str]] = []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        self.jobs += map(list, job_overrides)
        return []


def launched(overrides: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Let Hydra sweep, up to its launcher, without composing each point beforehand."""
    listed = Listed()
    monkeypatch.setattr(Plugins, "instantiate_launcher", lambda *_, **__: listed)
    monkeypatch.setattr(Sweeper, "validate_batch_is_legal", lambda *_: None)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        sweep = ["hydra.mode=MULTIRUN", "hydra/sweeper=basic", f"hydra.sweep.dir={folder}"]
        hydra.multirun("train", lambda cfg: None, [*overrides, *sweep], with_log_configuration=False)
    return listed.jobs


@pytest.mark.parametrize("overrides", [*ASKED, *([f"experiment={name}"] for name in STUDIES)], ids=" ".join)
def test_the_points_are_those_that_hydra_launches(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert points("train", overrides) == launched(overrides, tmp_path, monkeypatch)


@pytest.mark.parametrize("overrides", ASKED, ids=" ".join)
def test_a_point_is_what_hydra_composes(overrides: list[str]) -> None:
    with composing():
        for point in points("train", overrides)[:4]:
            assert plain(composed("train", point)) == plain(compose("train", point))


def plain(cfg: DictConfig) -> Any:
    return OmegaConf.to_container(cfg, resolve=False)


@pytest.mark.parametrize("mistake", ["optim.lrr=1", "task=nothing", "optim.epochs=many"])
def test_a_mistake_is_what_hydra_says_it_is(mistake: str) -> None:
    with composing():
        with pytest.raises(HydraException) as theirs:
            compose("train", [mistake])
        with pytest.raises(HydraException) as ours:
            composed("train", [mistake])

    assert str(ours.value) == str(theirs.value)
