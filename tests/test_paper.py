"""`optim=paper`: the paper's values where it has some, stated ones where it has none, all of them in the run's name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from er import paper
from er.config import CONF, Config
from er.identity import identity, run_id

Composed = Callable[..., Config]

COLUMNS = paper.tables()["tasks"]
ROWS = [
    (f"{group}/{model}/{way}", row)
    for group in ("standard", "adapters")
    for model, ways in paper.tables()[group].items()
    for way, row in ways.items()
]


@pytest.mark.parametrize(
    ("overrides", "lr", "source"),
    [
        (["model=roberta_large", "task=chemprot", "method=reduced", "cut=0.5"], 1e-5, "12 layers frozen"),
        (["model=roberta_large", "task=chemprot", "method=reduced", "cut=12"], 1e-5, "12 layers frozen"),
        (["model=roberta_large", "task=jnlpba", "method=reduced", "cut=0.75"], 1e-4, "18 layers frozen"),
        (["model=roberta_large", "task=chemprot", "method=finetune"], 5e-5, "the whole model"),
        (["model=distilbert", "task=squad", "method=reduced", "cut=0.33"], 1e-4, "2 layers frozen"),
        (["model=minilm_l6_h384", "task=scicite", "method=reduced", "cut=0.66"], 1e-5, "4 layers frozen"),
        (["model=bert_base", "task=triviaqa", "method=reduced", "cut=9"], 1e-4, "9 layers frozen"),
        (["model=scibert", "task=bc5cdr", "method=reduced_adapters"], 1e-3, "adapters in the later half"),
        (["model=scibert", "task=bc5cdr", "method=adapters"], 5e-5, "adapters in all layers"),
        (["model=t5_large", "task=squad", "method=reduced_adapters"], 2e-4, "adapters in the later half"),
        (["model=deberta_v2_xlarge", "task=ncbi_disease", "method=reduced_adapters"], 5e-5, "adapters in the later"),
        (
            ["model=distilbert", "task=scicite", "method=cross_model", "model@method.source.model=bert_base"],
            5e-6,
            "from bert_base",
        ),
    ],
)
def test_the_papers_learning_rate_is_taken_where_it_has_one(
    composed: Composed, overrides: list[str], lr: float, source: str
) -> None:
    config = composed("optim=paper", *overrides)

    assert config.optim.lr == lr
    assert source in paper.explained(config)["lr"].source


@pytest.mark.parametrize(
    ("overrides", "lr"),
    [
        (["model=minilm_l6", "task=scicite", "method=reduced"], 5e-5),
        (["model=roberta_large", "task=stdlib_docs", "method=reduced"], 5e-5),
        (["model=roberta_large", "task=scicite", "method=reduced", "cut=0.1"], 5e-5),
        (["model=roberta_large", "task=scicite", "method=probe"], 5e-5),
        (["model=bert_base", "task=scicite", "method=reduced"], 5e-5),
        (["model=roberta_large", "task=scicite", "method=reduced_adapters", "cut=0.25"], 1e-4),
        (["model=minilm_l6", "task=scicite", "method=reduced_adapters"], 1e-4),
        (["model=roberta_large", "task=scicite", "method=cross_model"], 5e-5),
    ],
)
def test_where_it_has_none_the_value_is_said_to_be_ours(composed: Composed, overrides: list[str], lr: float) -> None:
    config = composed("optim=paper", *overrides)

    assert paper.explained(config)["lr"] == (lr, paper.OURS)


@pytest.mark.parametrize(
    ("task", "method", "expected"),
    [
        ("scicite", "reduced", {"epochs": 100, "patience": 5, "batch_size": 32, "warmup": 100, "clip": None}),
        ("jnlpba", "adapters", {"epochs": 100, "patience": 5, "batch_size": 32, "weight_decay": 0.0}),
        ("triviaqa", "reduced", {"epochs": 10, "patience": 3}),
        ("triviaqa", "reduced_adapters", {"epochs": 15, "patience": 3}),
        ("squad", "finetune", {"epochs": 3, "clip": 1.0, "warmup": 0.0}),
        ("mnli", "finetune", {"epochs": 10, "weight_decay": 0.01, "warmup": 0.06}),
    ],
)
def test_the_other_settings_go_by_the_kind_of_task(
    composed: Composed, task: str, method: str, expected: dict[str, object]
) -> None:
    config = composed("optim=paper", "model=roberta_large", f"task={task}", f"method={method}")

    assert {name: getattr(config.optim, name) for name in expected} == expected


def test_the_values_and_not_the_name_of_the_option_identify_a_run(composed: Composed) -> None:
    options = ["model=roberta_large", "task=chemprot", "method=reduced"]
    values = ["epochs=100", "batch_size=32", "lr=1e-5", "weight_decay=0", "warmup=100", "patience=5", "clip=null"]
    chosen = composed("optim=paper", *options)
    spelled = composed(*options, *(f"optim.{value}" for value in values))

    first, second = (run_id(identity(config, 12, {"model": "m", "task": "t"})) for config in (chosen, spelled))
    assert first == second


def test_what_the_user_sets_wins_and_is_said(composed: Composed, caplog: pytest.LogCaptureFixture) -> None:
    config = composed("optim=paper", "optim.lr=0.5", "model=roberta_large", "task=scicite", "method=reduced_adapters")
    with caplog.at_level(logging.INFO):
        paper.explain(config)

    assert config.optim.lr == 0.5
    assert "optim.lr=0.5: set by you; 0.0001 otherwise" in caplog.text
    assert "optim.epochs=100: the paper's scripts, text, adapters training" in caplog.text
    assert "seed=0,1,2,3,4" in caplog.text and "method.adapter.bottleneck=24" in caplog.text


@pytest.mark.parametrize(("name", "row"), ROWS, ids=[name for name, _ in ROWS])
def test_every_row_has_a_value_of_the_papers_grid_for_every_task(name: str, row: list[float | None]) -> None:
    assert len(row) == len(COLUMNS)
    assert {value for value in row if value is not None} <= {1e-4, 2e-4, 1e-5, 2e-5, 5e-5, 5e-6, 1e-3}


def test_the_tables_name_models_and_tasks_that_there_are() -> None:
    def there(group: str) -> set[str]:
        return {path.stem for path in (CONF / group).glob("*.yaml")}

    tables = paper.tables()
    assert set(tables["depth"]) == set(tables["standard"]) <= there("model")
    assert set(tables["adapters"]) <= there("model")
    assert set(COLUMNS) | {task for tasks in tables["kinds"].values() for task in tasks} <= there("task")


def test_the_tables_come_with_the_package() -> None:
    assert paper.TABLES.parent == Path(paper.__file__).parent and paper.TABLES.is_file()
