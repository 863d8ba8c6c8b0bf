"""Who may know whom: the rooms of the house import one another in one direction only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import er

HOUSE = Path(er.__file__).parent
ROOMS = sorted(path.parent.name for path in HOUSE.glob("*/__init__.py"))

BASE = {"cache", "encoders", "tasks"}
KNOWS = {
    **{room: set[str]() for room in (*BASE, "reporting")},
    "training": BASE,
    "benchmarks": {*BASE, "training"},
    "serving": {*BASE, "training"},
    "studies": {*BASE, "training", "benchmarks"},
    "commands": {*BASE, "training", "benchmarks", "serving", "studies", "reporting"},
}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_knows_only_those_below_it(room: str) -> None:
    assert room in KNOWS, f"er/{room} is new: say in KNOWS which rooms it may import"
    known = {
        name.split(".")[1]
        for path in (HOUSE / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module
        for name in ([f"er.{each.name}" for each in node.names] if node.module == "er" else [node.module])
        if name.startswith("er.")
    }

    assert known & set(ROOMS) - {room} <= KNOWS[room]
