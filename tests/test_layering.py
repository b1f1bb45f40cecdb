"""The guard of the floors: every import points down."""

import ast
from pathlib import Path

import pytest

import cdm_cli

PACKAGE = Path(cdm_cli.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
FLOORS = [
    {"errors", "__version__", "names", "sentences", "__init__"}, {"config", "outputs", "signals"},
    {"options", "presets"},
    {"options_eval", "options_files"}, {"diffusion", "nets", "data", "metrics"}, {"cascade"},
    {"jobs"}, {"commands"}, {"app"}, {"__main__"},
]  # fmt: skip
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imported(ast.parse(path.read_text())):
        if name.startswith("cdm_cli."):
            other = name.split(".")[1]
            assert other == room or FLOOR[other] < FLOOR[room], f"{room} imports {name}"
