"""W&B and CSV mirror the result: the same figures, also without a network."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from er.config import CONF, Config
from er.errors import UserError
from er.mirror import flat
from er.results import Result
from er.training.loggers import opened
from tests.offline import Sent, sent

Train = Callable[..., Result]

METHODS = ("finetune", "reduced")


def of(result: Result, folder: Path) -> Sent:
    (file,) = folder.rglob(f"run-{result.run_id}.wandb")
    return sent(file)


@pytest.mark.filterwarnings("default")  # wandb's own
def test_wandb_offline_carries_what_was_run_and_what_came_out(train: Train, tmp_path: Path) -> None:
    base, recycled = (train("logger=wandb", f"method={name}", "logger.options.group=g") for name in METHODS)

    for result in (base, recycled):
        found = of(result, tmp_path)
        assert (found.id, found.group, found.exit_code) == (result.run_id, "g", 0)
        for name, value in flat({"metrics": result.metrics, "seconds": result.seconds}).items():
            assert found.summary[name] == pytest.approx(value), name
        assert found.summary["steps"] == result.steps
        assert found.summary["memory/rss"] == result.memory["rss"]
        assert found.config["optim"] == result.config["optim"]
        assert found.config["identity"] == result.identity
        assert found.config["env"] == result.env
        assert found.artifacts == {"result": ["details.json", "predictions.jsonl", "result.json"]}
    assert of(recycled, tmp_path).summary["cache/bytes"] > 0


@pytest.mark.filterwarnings("default")
def test_wandb_has_the_speedup_over_a_baseline_that_is_done(train: Train, tmp_path: Path) -> None:
    base = train("method=finetune")
    recycled, alone = train("logger=wandb", "method=reduced"), train("logger=wandb", "method=reduced", "seed=1")

    pace = [(each.seconds["train"] + each.seconds["read"]) / each.steps for each in (base, recycled)]
    assert of(recycled, tmp_path).summary["speedup/warm"] == pytest.approx((pace[0] / pace[1] - 1) * 100)
    assert "speedup/cold" in of(recycled, tmp_path).summary
    assert not any(name.startswith("speedup") for name in of(alone, tmp_path).summary)


@pytest.mark.filterwarnings("default")
def test_a_run_that_fails_has_failed_at_wandb_too(small: Callable[..., Config], tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), opened(small("logger=wandb"), {"cut": 2}, tmp_path):
        raise ZeroDivisionError

    (file,) = tmp_path.rglob("*.wandb")
    assert sent(file).exit_code == 1


def test_csv_has_every_epoch(train: Train, tmp_path: Path) -> None:
    result = train("logger=csv", "optim.epochs=3")

    (file,) = tmp_path.rglob("metrics.csv")
    losses = [float(row["dev/loss"]) for row in csv.DictReader(file.read_text().splitlines()) if row["dev/loss"]]
    assert losses == pytest.approx([epoch["dev/loss"] for epoch in result.history])


def test_an_unknown_logger_is_refused(train: Train) -> None:
    with pytest.raises(UserError, match="none, csv, wandb"):
        train("logger.name=tensorboard")


@pytest.fixture
def of_experiment() -> Iterator[None]:
    """Make this process look like `er train experiment=quickstart`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["experiment=quickstart"], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    yield
    HydraConfig.instance().cfg = None


@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("of_experiment")
def test_the_runs_of_an_experiment_are_one_group_at_wandb(small: Callable[..., Config], tmp_path: Path) -> None:
    with opened(small("logger=wandb"), {"cut": 2}, tmp_path):
        pass

    (file,) = tmp_path.rglob("*.wandb")
    assert sent(file).group == "quickstart"
