"""README.md, CONTRIBUTING.md and docs/: every command exists, every link leads somewhere."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from cdm_cli.app import app
from cdm_cli.presets import PRESETS
from tests.tree import ROOT

GROUP = typer.main.get_command(app)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[str]:
    """Return the command lines of a page: those that are set as code on lines of their own."""
    found = re.findall(r"^(?:    |\$ )(cdm (?:[^#\n… ]| (?! ))*)", page.read_text(), re.MULTILINE)
    return [line.strip() for line in found]


@pytest.mark.parametrize(
    "line", sorted({line for page in PAGES for line in commands(page)}), ids=lambda line: line[:60]
)
def test_every_command_parses(line):
    name, *words = shlex.split(line)[1:]
    if words and f"{name} {words[0]}" in GROUP.commands:
        name, *words = f"{name} {words[0]}", *words[1:]
    context = GROUP.commands[name].make_context(name, words)
    assert context.params.get("preset") in (None, *PRESETS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_program_is_there(page):
    text = page.read_text()
    links = re.findall(r"\]\((?!http)([^)#]+)", text)
    programs = re.findall(r"\b((?:benchmarks|docs/evidence)/\w+\.(?:py|sh))\b", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [name for name in programs if not (ROOT / name).exists()]
    assert not missing


def test_the_readme_is_short():
    """Its reader has two minutes; what is longer belongs into docs/."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
