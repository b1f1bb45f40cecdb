"""The tree in README.md, drawn from the first line of each module's docstring.

`python -m tests.readme_tree` writes it anew.
"""

import ast
import re
from pathlib import Path

import cdm_cli

PACKAGE = Path(cdm_cli.__file__).parent
README = PACKAGE.parent / "README.md"
ROOMS = ("options", "commands", "jobs", "cascade", "diffusion", "nets", "data", "metrics")
FENCE = re.compile(r"(## The tree\n.*?```text\n).*?(\n```)", re.DOTALL)
WIDTH = 110


def remark(path: Path) -> str:
    """Return the first sentence of what a module says of itself."""
    said = ast.get_docstring(ast.parse(path.read_text())) or ""
    line = first_sentence(" ".join(said.split("\n\n")[0].split()))
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 2].rsplit(' ', 1)[0]} …"


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


def current(readme: str) -> str:
    """Return the text of README.md with the tree as it is now."""
    return FENCE.sub(lambda match: match[1] + tree() + match[2], readme)


if __name__ == "__main__":
    README.write_text(current(README.read_text()))
