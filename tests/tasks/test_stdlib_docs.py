from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from er import config
from er.errors import UserError
from er.tasks import load_task, stdlib_docs

LONG = "A docstring that is long enough to count"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small standard library: one package with tests, one module with its other half beside it."""
    files = {
        "asyncio/__init__.py": f'"""{LONG},\n  over two lines.\n\nA second paragraph."""\n',
        "asyncio/deep/inner.py": f'class A:\n    async def f(self):\n        "{LONG} as a method."\n',
        "asyncio/test/test_it.py": f'"""{LONG} in a test."""\n',
        "asyncio/tests/test_it.py": f'"""{LONG} in a test."""\n',
        "datetime.py": f'"""{LONG} in the shell of a module."""\n',
        "_pydatetime.py": f'"""{LONG} in its other half."""\ndef short():\n    "Too short."\n',
        "os.py": f'"""{LONG} but of no package asked for."""\n',
    }
    for name, source in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    return tmp_path


def found(root: Path) -> list[tuple[str, str]]:
    return [(row.fields["label"], row.fields["text"]) for row in stdlib_docs.rows(root)]


def test_first_paragraphs_of_all_docstrings_but_those_of_tests(root: Path) -> None:
    assert found(root) == [
        ("asyncio", f"{LONG}, over two lines."),
        ("asyncio", f"{LONG} as a method."),
        ("datetime", f"{LONG} in its other half."),
        ("datetime", f"{LONG} in the shell of a module."),
    ]


def test_a_row_names_file_and_line(root: Path) -> None:
    assert stdlib_docs.rows(root)[1].where == f"{root / 'asyncio/deep/inner.py'}:2"


def test_a_text_of_two_packages_is_left_out_and_one_of_one_package_kept_once(root: Path) -> None:
    before = found(root)
    for name, count in (("asyncio/a.py", 1), ("datetime.py", 2)):
        shared = f'def f():\n    "{LONG} shared."\n'
        own = f'def f():\n    "{LONG} of {name}."\n' * count
        with (root / name).open("a") as file:
            file.write(shared + own)

    added = [row for row in found(root) if row not in before]

    assert added == [("asyncio", f"{LONG} of asyncio/a.py."), ("datetime", f"{LONG} of datetime.py.")]


def test_missing_packages_are_reported(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    stdlib_docs.rows(root)

    assert "no docstrings of ['collections', 'email'" in caplog.text


def test_a_library_without_source_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no source to read"):
        stdlib_docs.rows(tmp_path)


@pytest.mark.parametrize("source", [b"def broken(:\n", b"\x00", b"# coding: no-such-codec\n", b'"\xff"'])
def test_a_broken_file_is_named(source: bytes, root: Path) -> None:
    (root / "datetime.py").write_bytes(source)

    with pytest.raises(UserError, match=r"datetime\.py: no valid Python"):
        stdlib_docs.rows(root)


def test_an_odd_escape_in_a_file_is_no_warning(root: Path) -> None:
    (root / "typing.py").write_text(f'"""{LONG} and odd."""\nodd = "\\d"\n')

    assert ("typing", f"{LONG} and odd.") in found(root)


def test_this_interpreter_has_every_label_in_every_split(task: Callable[..., config.Task]) -> None:
    loaded = load_task(task(builtin="stdlib_docs"), None)

    assert loaded.labels == sorted(stdlib_docs.PACKAGES)
    assert loaded.origin == {"train": "given", "dev": "derived", "test": "derived"}
    assert sum(loaded.sizes.values()) > 2_000
    assert all(150 < loaded.sizes[split] < 400 for split in ("dev", "test"))


def test_texts_are_distinct_and_of_the_stated_length() -> None:
    rows = stdlib_docs.rows()

    assert max(Counter(row.fields["text"] for row in rows).values()) == 1
    assert all(len(row.fields["text"]) in stdlib_docs.LENGTHS for row in rows)
