"""The guard of the floors: every import points down, between rooms and between rooms in a room."""

import ast
from pathlib import Path

import pytest

import cdm_cli

PACKAGE = Path(cdm_cli.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
FLOORS = [
    {"errors", "__version__", "names", "sentences", "units"},
    {"settings", "signals", "startup", "translation"},
    {"config"}, {"plans"}, {"options", "report", "overrides", "settable"}, {"presets"},
    {"diffusion", "nets", "data", "metrics"}, {"cascade"},
    {"jobs"}, {"commands", "api"}, {"app"}, {"__main__", "__init__"},
]  # fmt: skip
INNER_FLOORS = [
    {"runtime"}, {"sampling"}, {"pictures", "elbo", "prepare", "exchange"}, {"judging"},
    {"training", "sweep", "curve"}, {"cas", "checking", "tune", "workspace"}, {"demo", "reporting"},
]  # fmt: skip
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
INNER_FLOOR = {room: height for height, rooms in enumerate(INNER_FLOORS) for room in rooms}


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def check(room, other, floors, name):
    assert other == room or floors[other] < floors[room], f"{room} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    room, *inner = path.relative_to(PACKAGE).with_suffix("").parts
    for name in imported(ast.parse(path.read_text())):
        if name.startswith("cdm_cli."):
            _, other, *its_inner = name.split(".")
            check(room, other, FLOOR, name)
            if room == other == "jobs" and its_inner:
                check(inner[0], its_inner[0], INNER_FLOOR, name)


def test_every_room_of_jobs_has_a_floor():
    rooms = {path.parent.name for path in (PACKAGE / "jobs").glob("*/__init__.py")}
    assert rooms == set(INNER_FLOOR)
