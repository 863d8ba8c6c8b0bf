"""The hub's code path on a local folder in hub format: `load_dataset` treats both alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest

from er import choices, config
from er.errors import UserError
from er.tasks import hub, load_task
from er.tasks.tokens import quiet

MakeTask = Callable[..., config.Task]


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


Repository = Callable[..., str]


@pytest.fixture
def repository(tmp_path: Path) -> Callable[..., str]:
    """Write splits as parquet, as the hub does: `repository(train={...columns...}, classes=[...])`."""

    def write(classes: list[str] | None = None, **splits: dict[str, list[Any]]) -> str:
        folder = tmp_path / "repository"
        for split, columns in splits.items():
            kinds = {"label": datasets.ClassLabel(names=classes)} if classes else {}
            features = datasets.Features({name: datasets.Value("string") for name in columns} | kinds)
            data = datasets.Dataset.from_dict(columns, features=features)
            with quiet():
                data.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
        return str(folder)

    return write


COLUMNS = {"text": ["one", "two", "three"], "label": [0, 1, 1]}


def test_class_numbers_become_their_names(task: MakeTask, repository: Repository) -> None:
    path = repository(["no", "yes"], train=COLUMNS, validation=COLUMNS, test=COLUMNS)

    rows = hub.read(task(path=path))

    assert list(rows) == ["train", "dev", "test"]
    assert [row.fields for row in rows["dev"]] == [
        {"text": "one", "label": "no"},
        {"text": "two", "label": "yes"},
        {"text": "three", "label": "yes"},
    ]
    assert rows["dev"][1].where == f"{path}[validation], row 2"


def test_names_may_differ_from_those_of_the_files(task: MakeTask, repository: Repository) -> None:
    path = repository(train={"string": ["one"], "intent": ["x"], "label": ["unused"]})

    rows = hub.read(task(path=path, hub_text=["string"], hub_label="intent"))

    assert (rows["train"][0].fields["text"], rows["train"][0].fields["label"]) == ("one", "x")


def test_a_missing_column_is_named(task: MakeTask, repository: Repository) -> None:
    path = repository(train={"string": ["one"], "label": ["x"]})

    with pytest.raises(UserError, match=r"no column 'text'; it has: string, label.*task\.hub_text"):
        hub.read(task(path=path))


def test_columns_must_match_in_number(task: MakeTask) -> None:
    with pytest.raises(UserError, match=r"hub_text=.* as many columns"):
        hub.read(task(path="some/id", hub_text=["a", "b"]))


def test_hidden_answers_are_named(task: MakeTask, repository: Repository) -> None:
    path = repository(["no", "yes"], train=COLUMNS, test=COLUMNS | {"label": [0, -1, -1]})

    with pytest.raises(UserError, match=r"\[test\], row 2: column 'label' is -1.*hides"):
        hub.read(task(path=path))


def test_only_the_columns_of_the_task_are_looked_at(task: MakeTask, repository: Repository) -> None:
    path = repository(["no", "yes"], train=COLUMNS | {"label": [-1, -1, -1], "answer": ["a", "b", "b"]})

    assert hub.read(task(path=path, hub_label="answer"))["train"][0].fields["label"] == "a"


def test_a_missing_label_is_named(task: MakeTask, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    path = repository(["no", "yes"], train=COLUMNS | {"label": [0, None, 1]})
    monkeypatch.setattr("er.tasks.sources._local", lambda path: None)

    with pytest.raises(UserError, match=r"\[train\], row 2: column 'label' should hold a label"):
        load_task(task(path=path), None)


def test_train_is_required(task: MakeTask, repository: Repository) -> None:
    with pytest.raises(UserError, match="no split 'train', only: test"):
        hub.read(task(path=repository(test=COLUMNS)))


def test_missing_splits_are_taken_from_train(
    task: MakeTask, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"text": [f"text {i}" for i in range(100)], "label": ["a", "b"] * 50}
    path = repository(train=columns)
    monkeypatch.setattr("er.tasks.sources._local", lambda path: None)

    assert load_task(task(path=path), None).origin["dev"] == "derived"


def test_the_splits_of_the_hub_may_have_other_names(task: MakeTask, repository: Repository) -> None:
    path = repository(["no", "yes"], train=COLUMNS, validation=COLUMNS, test=COLUMNS | {"label": [-1, -1, -1]})

    assert list(hub.read(task(path=path, hub_splits={"train": "train", "dev": "validation"}))) == ["train", "dev"]
    with pytest.raises(UserError, match=r"no split 'valid', only: train, validation, test.*task\.hub_splits"):
        hub.read(task(path=path, hub_splits={"train": "train", "dev": "valid"}))
    with pytest.raises(UserError, match="hub_splits names valid; there are only"):
        hub.read(task(path=path, hub_splits={"train": "train", "valid": "validation"}))


def test_a_list_of_class_numbers_becomes_names(tmp_path: Path) -> None:
    kinds = {
        "tokens": datasets.List(datasets.Value("string")),
        "ner_tags": datasets.List(datasets.ClassLabel(names=["O", "B-x"])),
    }
    rows = {"tokens": [["a", "b"]], "ner_tags": [[0, 1]]}
    with quiet():
        datasets.Dataset.from_dict(rows, datasets.Features(kinds)).to_parquet(tmp_path / "train.parquet")
    task = config.Task(name="own", kind=choices.Kind.tagging, path=str(tmp_path), text=["tokens"], label="tags")
    task.hub_label = "ner_tags"

    assert hub.read(task)["train"][0].fields["tags"] == ["O", "B-x"]


@pytest.mark.parametrize("path", ["nobody/no-such-data-set", "no-such-data-set"])
def test_a_hub_that_cannot_be_reached_is_a_user_error(path: str, task: MakeTask) -> None:
    with pytest.raises(UserError, match=rf"{path} is no directory here.*hub did not give it.*paths\.data"):
        load_task(task(path=path), None)


def test_nothing_is_printed(task: MakeTask, repository: Repository, capfd: pytest.CaptureFixture[str]) -> None:
    path = repository(train=COLUMNS)
    hub.read(task(path=path))

    assert capfd.readouterr() == ("", "")
    assert not datasets.are_progress_bars_disabled()


SPLITS = ("train", "validation", "test")
TEXTS = {split: [f"{split} {i}" for i in range(4)] for split in SPLITS}


def of_split(split: str) -> datasets.Dataset:
    kinds = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    return datasets.Dataset.from_dict({"text": TEXTS[split], "label": [0, 1] * 2}, features=datasets.Features(kinds))


def clone(folder: Path, name: str = "data/{}-00000-of-00001.parquet") -> None:
    for split in SPLITS:
        of_split(split).to_parquet(folder / name.format(split))


def shards(folder: Path) -> None:
    clone(folder, "{}-00000-of-00001.parquet")


def folders(folder: Path) -> None:
    clone(folder, "{}/any.parquet")


def saved(folder: Path) -> None:
    datasets.DatasetDict({split: of_split(split) for split in SPLITS}).save_to_disk(folder)


def described(folder: Path) -> None:
    clone(folder, "files/{}.of.mine.parquet")
    files = "".join(f"  - split: {split}\n    path: files/{split}.of.mine.parquet\n" for split in SPLITS)
    (folder / "README.md").write_text(f"---\nlicense: mit\nconfigs:\n- config_name: plain\n  data_files:\n{files}---\n")


@pytest.mark.parametrize("write", [clone, shards, folders, saved, described], ids=lambda write: write.__name__)
def test_a_folder_in_the_form_of_the_hub_is_read_as_the_hub_is(
    write: Callable[[Path], None], task: MakeTask, tmp_path: Path
) -> None:
    with quiet():
        write(tmp_path / "set")

    loaded: Any = load_task(task(path=str(tmp_path / "set")), None)

    assert loaded.labels == ["no", "yes"]
    assert {split: [e.content for e in examples] for split, examples in loaded.examples.items()} == {
        "train": TEXTS["train"],
        "dev": TEXTS["validation"],
        "test": TEXTS["test"],
    }
    assert str(tmp_path / "set") in loaded.examples["dev"][0].where


def test_one_split_that_was_saved_is_the_one_to_train_on(task: MakeTask, tmp_path: Path) -> None:
    rows = {"text": [f"text {i}" for i in range(100)], "label": ["a", "b"] * 50}
    with quiet():
        datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "set")

    origin = load_task(task(path=str(tmp_path / "set")), None).origin

    assert origin == {"train": "given", "dev": "derived", "test": "derived"}


def test_the_columns_of_a_folder_in_the_form_of_the_hub_are_the_hubs(task: MakeTask, tmp_path: Path) -> None:
    with quiet():
        clone(tmp_path / "set")

    loaded = load_task(
        task(path="x/y", folder="set", text=["#1"], label="L", hub_text=["text"], hub_label="label"), tmp_path
    )

    assert loaded.sizes == {"train": 4, "dev": 4, "test": 4}


def test_files_of_the_usual_names_come_first(task: MakeTask, tmp_path: Path) -> None:
    with quiet():
        clone(tmp_path / "set")
    for split in ("train", "dev", "test"):
        (tmp_path / "set" / f"{split}.csv").write_text("text,label\nmine,a\nmine too,b\n")

    assert load_task(task(path=str(tmp_path / "set")), None).labels == ["a", "b"]


def test_several_configurations_want_a_choice(task: MakeTask, tmp_path: Path) -> None:
    names = ("one", "other")
    for name in names:
        rows = {"text": [f"{name} {i}" for i in range(99)], "label": ["a", "b", "c"] * 33}
        with quiet():
            datasets.Dataset.from_dict(rows).to_parquet(tmp_path / f"{name}.parquet")
    card = "".join(f"- config_name: {name}\n  data_files: {name}.parquet\n" for name in names)
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{card}---\n# A set\n")

    with pytest.raises(UserError, match=r"available configs: \['one', 'other'\].*task\.config"):
        load_task(task(path=str(tmp_path)), None)
    loaded: Any = load_task(task(path=str(tmp_path), config="other"), None)
    assert loaded.examples["train"][0].content.startswith("other")


@pytest.mark.parametrize("content", [b"", b"PAR1 and nothing PAR1", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_clone_that_cannot_be_read_is_a_user_error(content: bytes, task: MakeTask, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000-of-00001.parquet").write_bytes(content)

    with pytest.raises(UserError, match=r"`datasets` cannot read it: .*task\.config"):
        load_task(task(path=str(tmp_path)), None)


def test_a_readme_alone_is_no_data_set(task: MakeTask, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nconfigs: see below\n---\n")

    with pytest.raises(UserError, match="no training file"):
        load_task(task(path=str(tmp_path)), None)
