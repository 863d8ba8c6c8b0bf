"""`er cache` as one types it: what each action says, what it refuses, and how it ends."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from er.cache.spaces import directories
from er.cache.usage import MARKER
from er.checks import settings
from er.choices import Action
from er.commands import cache as command
from er.commands.upkeep import OPTIONS, act
from er.config import CONF
from er.errors import UserError
from tests.cache.corpus import Corpus, build_slowly, content, equal, opened, segments

Er = Callable[..., str]


@pytest.fixture
def er(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Er:
    """Run `er cache` in this process, and give back what it writes."""

    def run(*overrides: str) -> str:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            given = [f"paths.cache={tmp_path}/cache", "trainer.progress=false", *overrides]
            act(settings(compose("cache", overrides=given)))
        return capsys.readouterr().out

    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache of one space, of many small segments, that nobody uses."""
    build_slowly(tmp_path / "cache", 60, 0, tmp_path / "calls")
    gc.collect()
    return tmp_path / "cache"


def damage(path: Path) -> Path:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return path


def test_the_list_says_what_a_space_is_and_when_it_was_used(er: Er, root: Path) -> None:
    (space,) = directories(root)
    then = time.time() - 3 * 86400
    os.utime(space / MARKER, (then, then))

    said = er("action=list")

    assert all(word in said for word in (space.name[:12], "float32", " 60 ", "3 d ago", "1 spaces"))


def test_every_action_names_another_version_and_strangers(er: Er, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = root / ("0" * 32)
    home.mkdir()
    (home / "space.json").write_text('{"space": {"format": 99}}')
    (root / "notes.txt").write_text("not ours")

    for action in ("list", "verify"):
        said = er(f"action={action}")
        assert f"{home} has format 99" in said
        assert f"not ours, left alone: {root / 'notes.txt'}" in said
    er("action=compact")
    er("action=push", f"url=file://{root}/../share")
    assert caplog.text.count(f"Left out: {home} has format 99") == 2
    assert "000000000000" in er("action=prune", "space=0000")
    assert not home.exists() and (root / "notes.txt").exists()


def test_verify_fails_where_there_is_damage_until_it_is_repaired(er: Er, root: Path) -> None:
    assert "every byte is as it was written" in er("action=verify")
    bad, lost, *_ = segments(opened(root))
    damage(bad)
    lost.unlink()

    with pytest.raises(UserError, match=r"1 damaged and 1 missing.*repair=true"):
        er("action=verify")
    said = er("action=verify", "repair=true")
    assert f"{bad} is damaged" in said and f"{lost} is missing" in said
    assert "every byte is as it was written" in er("action=verify")


def test_verify_looks_at_the_one_space_that_is_meant(er: Er, root: Path) -> None:
    texts = Corpus(20)
    other = opened(root, "int8")
    other.publish(texts.keys, texts.lengths, texts.packed(), seconds=1)
    damage(segments(opened(root))[0])

    assert "1 segments" in er("action=verify", f"space={other.directory.name[:12]}")
    with pytest.raises(UserError, match="1 damaged"):
        er("action=verify")
    with pytest.raises(UserError, match="begin so"):
        er("action=verify", "space=nothing")


def test_prune_needs_to_be_told_what(er: Er, root: Path) -> None:
    with pytest.raises(UserError, match=r"space=.*older_than=30d.*max_bytes=50GB"):
        er("action=prune")
    assert len(directories(root)) == 1


def test_a_dry_run_says_what_would_go_and_deletes_nothing(er: Er, root: Path) -> None:
    (space,) = directories(root)
    before = sorted(space.iterdir())

    assert f"would delete {space.name[:12]}" in er("action=prune", "max_bytes=1kB", "dry_run=true")
    assert sorted(space.iterdir()) == before
    assert f"deleting {space.name[:12]}" in er("action=prune", "max_bytes=1kB")
    assert not directories(root)


def test_prune_by_age_keeps_what_was_just_used(er: Er, root: Path) -> None:
    er("action=prune", "older_than=1h")
    assert len(directories(root)) == 1
    er("action=prune", "older_than=0s")
    assert not directories(root)


@pytest.mark.parametrize("how", ["max_bytes=0", "space={}"])
def test_prune_that_meets_a_run_keeps_its_space_and_says_so(er: Er, root: Path, how: str) -> None:
    texts, reader = Corpus(60), opened(root)
    (space,) = directories(root)

    with pytest.raises(UserError, match="in use"):
        er("action=prune", how.format(space.name[:12]))

    assert equal(content(reader, texts), texts.activations)


def test_compact_leaves_one_segment_and_every_entry(er: Er, root: Path) -> None:
    texts = Corpus(60)
    assert "now 1\n" in er("action=compact")
    assert len(segments(opened(root))) == 1
    assert equal(content(opened(root), texts), texts.activations)


def test_push_and_pull_bring_a_cache_to_another_place(er: Er, root: Path, tmp_path: Path) -> None:
    url, texts = f"url=file://{tmp_path}/share", Corpus(60)
    count = len(segments(opened(root)))

    assert f"{count} segments sent" in er("action=push", url)
    assert f"0 segments sent, 0.00B; {count} were there" in er("action=push", url)
    root.rename(tmp_path / "elsewhere")
    assert f"{count} segments fetched" in er("action=pull", url)
    assert equal(content(opened(root), texts), texts.activations)


def test_a_pull_respects_the_quota(er: Er, root: Path, tmp_path: Path) -> None:
    url = f"url=file://{tmp_path}/share"
    er("action=push", url)
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"cache\.max_bytes=1kB"):
        er("action=pull", url, "cache.max_bytes=1kB")


@pytest.mark.parametrize("action", ["push", "pull"])
def test_a_transfer_needs_a_place(er: Er, root: Path, action: str) -> None:
    with pytest.raises(UserError, match=rf"action={action} needs a place: url="):
        er(f"action={action}")


def test_there_must_be_something_to_send_or_fetch(er: Er, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to send"):
        er("action=push", f"url=file://{tmp_path}/share")
    with pytest.raises(UserError, match="no activations at"):
        er("action=pull", f"url=file://{tmp_path}/share")


GIVEN = {
    "repair": "true",
    "dry_run": "true",
    "older_than": "1d",
    "max_bytes": "1",
    "space": "a",
    "url": "file:///x",
    "run": "a",
    "input": "a",
}


@pytest.mark.parametrize(
    ("option", "action"),
    [(option, action) for option in OPTIONS for action in Action if action not in OPTIONS[option] | {Action.build}],
)
def test_an_option_that_would_mean_nothing_is_refused(er: Er, option: str, action: Action) -> None:
    with pytest.raises(UserError, match=rf"{option} means nothing for action={action.name}"):
        er(f"action={action.name}", f"{option}={GIVEN[option]}")


@pytest.mark.parametrize("action", ["list", "verify", "prune older_than=0s", "compact", "push url=file:///nowhere/x"])
def test_a_file_in_place_of_the_cache_is_named(er: Er, tmp_path: Path, action: str) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match=rf"Cannot read the cache at {tmp_path}/cache.*paths.cache"):
        er(*f"action={action}".split())


@pytest.mark.parametrize("name", ["3e12", "3fa2", "0123", "12345678"])
def test_a_name_that_looks_like_a_number_stays_a_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(command, "command", lambda: seen.append(sys.argv[1:]))
    monkeypatch.setattr("sys.argv", ["er cache", f"space={name}"])
    command.main()

    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert settings(compose("cache", overrides=seen[0])).space == name


def test_exit_codes_and_messages_without_a_traceback(root: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "er", "cache", f"paths.cache={root}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    bad = damage(segments(opened(root))[0])
    found, mended = run("action=verify"), run("action=verify", "repair=true")

    assert (found.returncode, mended.returncode) == (1, 0)
    assert str(bad) in found.stdout and "repair=true" in found.stderr
    assert "Traceback" not in found.stderr
    assert "Verifying" in found.stderr
