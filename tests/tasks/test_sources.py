from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from er import config
from er.errors import UserError
from er.tasks import load_task

MakeTask = Callable[..., config.Task]
Folder = Callable[..., Path]

ROWS = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(200)]
DEV = [{"text": "dev", "label": "a"}]
TEST = [{"text": "test", "label": "b"}, {"text": "test too", "label": "b"}]


@pytest.mark.parametrize("name", ["dev", "validation", "valid"])
def test_the_dev_split_has_three_names(name: str, task: MakeTask, folder: Folder) -> None:
    path = folder(train=ROWS, test=TEST, **{name: DEV})

    loaded = load_task(task(path=str(path)), None)

    assert loaded.sizes == {"train": 200, "dev": 1, "test": 2}
    assert loaded.origin == {"train": "given", "dev": "given", "test": "given"}


def test_missing_splits_are_taken_from_train_and_recorded(
    task: MakeTask, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="er")

    loaded = load_task(task(path=str(folder(train=ROWS, test=TEST))), None)

    assert loaded.origin == {"train": "given", "dev": "derived", "test": "given"}
    assert loaded.sizes["train"] + loaded.sizes["dev"] == 200
    assert "no dev split" in caplog.text


def test_paths_data_and_folder_win_over_a_hub_id(task: MakeTask, folder: Folder) -> None:
    path = folder(train=ROWS, dev=DEV, test=TEST)

    loaded = load_task(task(path="some/hub-id", folder=path.name), path.parent)

    assert loaded.sizes["train"] == 200


def test_without_a_folder_paths_data_is_not_looked_at(task: MakeTask, folder: Folder) -> None:
    path = folder(train=ROWS, dev=DEV, test=TEST)

    assert load_task(task(path=str(path)), Path("/nowhere")).sizes["train"] == 200


@pytest.mark.parametrize("path", ["/no/such/dir", "./nodir", "~/no-such-dir", "~nobody-here/dir", "a/b/c"])
def test_a_local_path_that_is_not_there_never_becomes_a_hub_id(path: str, task: MakeTask) -> None:
    with pytest.raises(UserError, match=r"no such directory.*paths\.data"):
        load_task(task(path=path), None)


def test_a_file_is_no_directory(task: MakeTask, folder: Folder) -> None:
    file = folder(train=ROWS) / "train.jsonl"

    with pytest.raises(UserError, match="is a file"):
        load_task(task(path=str(file)), None)


def test_a_missing_folder_never_falls_back_to_the_hub(task: MakeTask, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no directory 'absent'.*ER_DATA"):
        load_task(task(path="some/hub-id", folder="absent"), tmp_path)


def test_two_places_for_the_data_are_refused(task: MakeTask, folder: Folder) -> None:
    path = folder(train=ROWS)

    with pytest.raises(UserError, match=r"both offer data.*task\.folder=null"):
        load_task(task(path=str(path), folder=path.name), path.parent)


def test_no_place_at_all_says_what_to_set(task: MakeTask) -> None:
    with pytest.raises(UserError, match=r"no data.*paths\.data.*task\.path"):
        load_task(task(), None)


def test_a_builtin_takes_no_path(task: MakeTask, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="task=classification"):
        load_task(task(builtin="stdlib_docs", path=str(tmp_path)), None)
    with pytest.raises(UserError, match="there is: stdlib_docs"):
        load_task(task(builtin="other"), None)


def test_two_files_for_one_split_are_both_named(task: MakeTask, folder: Folder) -> None:
    path = folder(train=ROWS, dev=DEV, valid=DEV)

    with pytest.raises(UserError, match=r"dev\.jsonl and valid\.jsonl"):
        load_task(task(path=str(path)), None)
    (path / "train.txt").write_text("{}")
    with pytest.raises(UserError, match=r"train\.jsonl and train\.txt"):
        load_task(task(path=str(path)), None)


def test_a_directory_without_train_says_what_is_there(task: MakeTask, folder: Folder) -> None:
    # One of the others may be meant to be it: the dev split takes its place only where there is none.
    with pytest.raises(UserError, match=r"no training file.*\.jsonl.*found dev\.jsonl, training\.jsonl"):
        load_task(task(path=str(folder(dev=DEV, training=ROWS))), None)


def test_an_empty_directory_says_what_is_expected(task: MakeTask, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no training file. Expected train with .*found nothing"):
        load_task(task(path=str(tmp_path)), None)


@pytest.mark.parametrize("given", ["dev", "test"])
def test_without_train_the_first_split_there_is_split(
    given: str, task: MakeTask, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="er")

    loaded = load_task(task(path=str(folder(**{given: ROWS}))), None)

    assert loaded.origin == dict.fromkeys(("train", "dev", "test"), "derived")
    assert sum(loaded.sizes.values()) == len(ROWS)
    assert f"no train split is given; {loaded.sizes['train']} of 200 {given} examples" in caplog.text


def test_without_train_a_test_split_stays_whole(task: MakeTask, folder: Folder) -> None:
    loaded = load_task(task(path=str(folder(dev=ROWS, test=TEST))), None)

    assert loaded.origin == {"train": "derived", "dev": "derived", "test": "given"}
    assert loaded.sizes["train"] + loaded.sizes["dev"] == 200
    assert loaded.sizes["test"] == 2


def test_equal_texts_in_train_and_test_are_counted(
    task: MakeTask, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = load_task(task(path=str(folder(train=[*ROWS, *TEST[:1]], dev=DEV, test=TEST))), None)

    assert loaded.leaks == 1
    assert "1 of 2 test examples have the very text of a training example" in caplog.text


def test_a_derived_split_leaks_nothing(task: MakeTask, folder: Folder) -> None:
    assert load_task(task(path=str(folder(train=ROWS + ROWS))), None).leaks == 0


@pytest.mark.parametrize("name", ["dev.jsonl.gz", "dev.conll", "dev"])
def test_a_split_in_an_unreadable_format_is_not_passed_over(name: str, task: MakeTask, folder: Folder) -> None:
    path = folder(train=ROWS, test=TEST)
    (path / name).write_bytes(b"")

    with pytest.raises(UserError, match="not readable as data"):
        load_task(task(path=str(path)), None)


def test_unrelated_files_are_passed_over(task: MakeTask, folder: Folder) -> None:
    path = folder(train=ROWS, dev=DEV, test=TEST)
    for name in ("README.md", "train.py", "train.jsonl.bak", "labels.txt", ".dev.jsonl"):
        (path / name).write_text("nothing")
    (path / "test").mkdir()

    assert load_task(task(path=str(path)), None).sizes["dev"] == 1
