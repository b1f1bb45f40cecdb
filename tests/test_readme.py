"""README.md is current, and every command in it and in docs/ is one that exists."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from cdm_cli.app import app
from cdm_cli.presets import PRESETS
from tests.readme_tree import README, current, first_sentence

GROUP = typer.main.get_command(app)
PAGES = [README, *sorted((README.parent / "docs").glob("*.md"))]


def commands(page: Path) -> list[str]:
    """Return the command lines of a page: those that are set as code on lines of their own."""
    found = re.findall(r"^(?:    |\$ )(cdm (?:[^#\n… ]| (?! ))*)", page.read_text(), re.MULTILINE)
    return [line.strip() for line in found]


def test_the_tree_is_current():
    text = README.read_text()
    assert text == current(text), "python -m tests.readme_tree draws it anew"


def test_no_remark_of_the_tree_breaks_off():
    tree = README.read_text().split("```text")[1].split("```")[0]
    for line in tree.splitlines():
        if not line.endswith("…"):
            assert line.count("(") == line.count(")"), line
            assert not line.endswith((" Eq", " al", ":")), line


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


@pytest.mark.parametrize(
    "line", sorted({line for page in PAGES for line in commands(page)}), ids=lambda line: line[:60]
)
def test_every_command_parses(line):
    name, *words = shlex.split(line)[1:]
    context = GROUP.commands[name].make_context(name, words)
    assert context.params.get("preset") in (None, *PRESETS)
