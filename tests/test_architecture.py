"""docs/architecture.md and docs/method.md say what is in the code: drawings, files and names."""

import ast
import re

import pytest

from tests.tree import PACKAGE, PAGE, ROOT, current, first_sentence

METHOD = ROOT / "docs/method.md"
PLACE = re.compile(r"`([\w/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)")
"""How a page names code: `diffusion/process.py`: `q_sample`, `q_posterior`."""


def test_the_drawings_are_current():
    text = PAGE.read_text()
    assert text == current(text), "python -m tests.tree draws them anew"


def test_no_remark_of_the_tree_breaks_off():
    tree = PAGE.read_text().split("\n## The tree\n")[1].split("```")[1]
    for line in tree.splitlines():
        assert line.count("(") == line.count(")"), line
        assert not line.endswith((" Eq", " al", ":", "…")), line


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (
            "A bound: Eq. 1 for a stage, Eq. 3 for a cascade.",
            "A bound: Eq. 1 for a stage, Eq. 3 for a cascade",
        ),
        ("The score (Salimans et al. 2016). Over splits.", "The score (Salimans et al. 2016)"),
        ("One thing. `cdm` does another.", "One thing"),
    ],
)
def test_a_remark_is_a_whole_sentence(text, first):
    assert first_sentence(text) == first


def names_in(path):
    """Return what a module defines: functions, classes, constants, and Class.member."""
    found = set[str]()
    for node in ast.parse((PACKAGE / path).read_text()).body:
        for name in _named(node):
            found.add(name)
            if isinstance(node, ast.ClassDef):
                found |= {f"{name}.{inner}" for member in node.body for inner in _named(member)}
    return found


def _named(node):
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.AnnAssign):
        return [node.target.id] if isinstance(node.target, ast.Name) else []
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def places(text):
    """Yield (file, name) for all code that a text names."""
    for path, names in PLACE.findall(text):
        for name in re.findall(r"`([\w.]+)`", names):
            yield path, name


@pytest.mark.parametrize("page", [METHOD, PAGE], ids=lambda page: page.name)
def test_all_code_that_a_page_names_is_there(page):
    text = page.read_text()
    files = set(re.findall(r"`([\w/]+\.py)`", text))
    missing = {name for name in files if not (PACKAGE / name).exists() | (ROOT / name).exists()}
    missing |= {f"{path}: {name}" for path, name in places(text) if name not in names_in(path)}
    assert not missing


@pytest.mark.parametrize("page", [METHOD, PAGE], ids=lambda page: page.name)
def test_every_row_that_has_a_place_in_the_code_names_it(page):
    """A table with the column "in the code" names a function in every row."""
    tables = re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE)
    rows = [table.splitlines()[2:] for table in tables if "| in the code |" in table]
    assert len(rows) >= 2
    assert not [row for table in rows for row in table if not PLACE.search(row)]


FILE_NAME = re.compile(r"[\w-]*\.?[\w-]+\.(jsonl?|csv|png|html|h5|safetensors)")
SPELLED_ANEW = {"demo": "it types what a user types", "exchange": "its classes.json is another one"}


def test_the_name_of_a_file_is_spelled_in_one_module():
    """Two modules that spell a file's name each for itself part when one of them is changed."""
    spelled = dict[str, set[str]]()
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name not in SPELLED_ANEW:
            for node in ast.walk(ast.parse(path.read_text())):
                value = node.value if isinstance(node, ast.Constant) else None
                if isinstance(value, str) and FILE_NAME.fullmatch(value):
                    spelled.setdefault(value, set()).add(str(path.relative_to(PACKAGE)))
    assert not {name: paths for name, paths in spelled.items() if len(paths) > 1}
