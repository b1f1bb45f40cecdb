"""Mirrors cdm_cli/commands/_fields.py: parsed flags become the options of a job."""

import re

import pytest
import typer
from typer.testing import CliRunner

from cdm_cli.app import app
from cdm_cli.commands import _fields
from cdm_cli.commands.table import TABLE
from cdm_cli.errors import UsageError

COMMANDS = {command.name: command for command in TABLE}


def options_of(name, *words):
    """Parse the words as the command `name` does, and fill its options."""
    seen = []

    def filled(options, ctx):
        try:
            seen.append(fill(options, ctx))
        except UsageError as error:
            seen.append(error)
        raise typer.Exit

    fill = _fields.fill_options
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_fields, "fill_options", filled)
        result = CliRunner().invoke(app, [*name.split(), *words])
    assert result.exit_code == 0, result.output
    if isinstance(seen[0], UsageError):
        raise seen[0]
    return seen[0]


@pytest.mark.parametrize("name", ["sample", "upsample", "sweep-s", "eval checkpoints"])
def test_no_flags_are_the_defaults(name):
    assert options_of(name) == COMMANDS[name].options()


def test_flags_reach_the_groups_they_belong_to():
    options = options_of("sweep-s", "low.h5", "--s", "0,251", "--augment", "truncated",
        "--augment", "non-truncated", "--features", "judge", "--steps", "50", "--no-clip",
        "--batch-size", "64", "--device", "cpu",
    )  # fmt: skip
    assert options.s == (0, 251)
    assert options.augments == ("truncated", "non-truncated")
    assert options.judge.features == "judge"
    assert options.sampling.steps == 50
    assert options.sampling.clip is False
    assert options.judge.compute.batch_size == 64
    assert options.judge.compute.device == "cpu"


def test_an_outer_field_keeps_its_flag_from_the_groups():
    train = options_of("train", "base", "--batch-size", "64")
    assert (train.batch_size, train.compute.batch_size) == (64, None)
    tune = options_of("tune-schedule", "--steps", "4,8")
    assert (tune.steps, tune.sampling.steps) == ((4, 8), None)


def test_repeated_flags_are_kept_in_order():
    train = options_of("train", "b", "--set", "model.channel_mult=1,2", "--set", "a=3")
    assert train.overrides == ("model.channel_mult=1,2", "a=3")


ADDRESS = "https://example.com/a//b.zip?c=d"


@pytest.mark.parametrize("words", [(ADDRESS,), ("x", "--val", ADDRESS), ("x", f"--val={ADDRESS}")])
def test_an_address_is_shown_as_typed(words, monkeypatch):
    words = ["prepare", *words]
    monkeypatch.setattr("sys.argv", ["cdm", *words])
    with pytest.raises(UsageError, match=rf" {re.escape(ADDRESS)}: an address"):
        options_of(*words)
    monkeypatch.setattr("sys.argv", ["cdm"])
    with pytest.raises(UsageError, match=r" https://example\.com/…: an address"):
        options_of(*words)


def test_text_may_begin_as_an_address_does_and_a_file_may_not():
    assert options_of("sample", "--note", ADDRESS).sampling.note == ADDRESS
    assert options_of("sample", "--classes", "note:/x").classes == "note:/x"
    with pytest.raises(UsageError, match=r"--classes .*: an address"):
        options_of("import", "x.npz", "-o", "x.h5", "--classes", ADDRESS)


def test_a_wrong_value_names_the_flag_and_the_value():
    with pytest.raises(UsageError, match=r"--keep-s x: .*whole number"):
        options_of("sample", "--keep-s", "251,x")
    with pytest.raises(UsageError, match=r"--num 0: expected 1 or more"):
        options_of("sample", "--num", "0")
