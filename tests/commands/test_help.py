"""Mirrors cdm_cli/commands/help.py."""

import pytest
from typer.testing import CliRunner

from cdm_cli.app import COMMANDS, app
from cdm_cli.commands.table import TABLE


def said(*words):
    done = CliRunner().invoke(app, words)
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize("words", [[], ["train"], ["eval"], ["eval", "cas"], ["help"]])
def test_the_word_shows_what_the_flag_shows(words):
    assert said("help", *words) == said(*words, "--help")
    assert said("help", *words)[0] == 0


def test_a_mistyped_command_gets_its_neighbour():
    code, shown, told = said("help", "trian")
    assert (code, shown) == (2, "")
    assert "did you mean train?" in told


def test_the_version_in_short():
    assert said("-V") == said("--version")
    assert said("-V")[1].startswith("cdm ")


def test_the_environment_is_told_with_its_defaults():
    shown = " ".join(said("--help")[1].split())
    for name in ("CDM_RUNS", "CDM_DATA", "CDM_DEVICE"):
        assert name in shown


def list_names():
    return [[], *([*name.split(" ")] for name in COMMANDS)]


@pytest.mark.parametrize("words", list_names(), ids=" ".join)
def test_help_fits_a_terminal_of_80_columns(words, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = said(*words, "--help")[1]
    assert [line for line in shown.splitlines() if len(line) > 80] == []
    for strange in (
        "list[",
        "<str>",
        "<path>",
        "[[",
        "...]",
        "...}",
    ):  # types of Python, dots twice
        assert strange not in shown


def test_the_list_of_commands_says_each_whole(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = " ".join(said("--help")[1].split())
    assert [command.name for command in TABLE if command.says not in shown] == []
