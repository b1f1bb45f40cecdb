"""The drawings in docs/architecture.md: the floors, and the tree of modules with their remarks.

`python -m tests.tree` draws them anew.
"""

import ast
import re
from pathlib import Path

import cdm_cli
from tests.test_layering import FLOORS, INNER_FLOORS

PACKAGE = Path(cdm_cli.__file__).parent
ROOT = PACKAGE.parent
PAGE = ROOT / "docs/architecture.md"
ROOMS = ("options", "commands", "jobs", "cascade", "diffusion", "nets", "data", "metrics")
FENCE = r"(\n## {}\n.*?```text\n).*?(\n```)"


def remark(path: Path) -> str:
    """Return the first sentence of what a module says of itself."""
    said = ast.get_docstring(ast.parse(path.read_text())) or ""
    return first_sentence(" ".join(said.split("\n\n")[0].split()))


def first_sentence(text: str) -> str:
    """Return text up to a full stop before a capital or code; Eq. 3 and et al. 2020 end nothing."""
    return re.split(r"\. (?=[A-Z`])", text)[0].rstrip(".")


def lines(directory: Path, depth: int) -> list[str]:
    """Return the modules of a directory, then each room in it with its own, top floor first."""
    indent = "  " * depth
    files = [path for path in sorted(directory.glob("*.py")) if path.name != "__init__.py"]
    width = max((len(path.name) for path in files), default=0)
    drawn = [f"{indent}{path.name:{width}}  {remark(path)}" for path in files]
    rooms = sorted(directory.glob("*/__init__.py"))
    if depth == 1:
        rooms = [directory / room / "__init__.py" for room in ROOMS]
    for room in rooms:
        drawn.append(f"{indent}{room.parent.name}/  {remark(room)}".rstrip())
        drawn += lines(room.parent, depth + 1)
    return drawn


def tree() -> str:
    """Return the tree: files of the package, then those of each room, top floor first."""
    return "\n".join(["cdm_cli/", *lines(PACKAGE, 1)])


def floors() -> str:
    """Return the floors that the test of layers guards, the top one first; those of jobs/ apart."""
    drawn: list[str] = []
    for floor in reversed(FLOORS):
        drawn.append(" | ".join(sorted(floor - {"__init__"})))
        if "jobs" in floor:
            drawn += [f"    {' | '.join(sorted(rooms))}" for rooms in reversed(INNER_FLOORS)]
    return "\n".join(drawn)


def current(page: str) -> str:
    """Return the text of docs/architecture.md with the drawings as they are now."""
    for heading, drawing in (("The floors", floors()), ("The tree", tree())):
        fence = re.compile(FENCE.format(heading), re.DOTALL)
        page = fence.sub(lambda match, new=drawing: match[1] + new + match[2], page)
    return page


if __name__ == "__main__":
    PAGE.write_text(current(PAGE.read_text()))
