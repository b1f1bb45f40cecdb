"""README.md is current, and every command in it and in docs/ is one that exists."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from cdm_cli.app import app
from cdm_cli.presets import PRESETS
from tests.readme_tree import README, current

GROUP = typer.main.get_command(app)
PAGES = [README, *sorted((README.parent / "docs").glob("*.md"))]


def commands(page: Path) -> list[str]:
    """Return the command lines of a page: those that are set as code on lines of their own."""
    found = re.findall(r"^(?:    |\$ )(cdm (?:[^#\n… ]| (?! ))*)", page.read_text(), re.MULTILINE)
    return [line.strip() for line in found]


def test_the_tree_is_current():
    text = README.read_text()
    assert text == current(text), "python -m tests.readme_tree draws it anew"


@pytest.mark.parametrize(
    "line", sorted({line for page in PAGES for line in commands(page)}), ids=lambda line: line[:60]
)
def test_every_command_parses(line):
    name, *words = shlex.split(line)[1:]
    context = GROUP.commands[name].make_context(name, words)
    assert context.params.get("preset") in (None, *PRESETS)
