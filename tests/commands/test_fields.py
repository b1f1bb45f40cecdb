"""Mirrors cdm_cli/commands/_fields.py: parsed flags become the options of a job."""

import pytest
import typer
from typer.testing import CliRunner

from cdm_cli.app import COMMANDS, Commands, everywhere
from cdm_cli.commands import _fields
from cdm_cli.errors import UsageError
from cdm_cli.options import SampleOptions, SweepOptions, TrainOptions, TuneOptions, UpsampleOptions


def options_of(name, model, *words):
    """Parse the words with the flags of the command `name` and fill the model."""
    seen = []
    group = typer.Typer(cls=Commands, add_completion=False)
    group.callback()(everywhere)

    def command(ctx: typer.Context, **_):
        try:
            seen.append(_fields.filled(model, ctx))
        except UsageError as error:
            seen.append(error)

    command.__signature__ = __import__("inspect").signature(COMMANDS[name])
    command.__annotations__ = COMMANDS[name].__annotations__
    group.command(name)(command)
    result = CliRunner().invoke(group, [name, *words])
    assert result.exit_code == 0, result.output
    if isinstance(seen[0], UsageError):
        raise seen[0]
    return seen[0]


@pytest.mark.parametrize(
    ("name", "model"),
    [("sample", SampleOptions), ("upsample", UpsampleOptions), ("sweep-s", SweepOptions)],
)
def test_no_flags_are_the_defaults(name, model):
    assert options_of(name, model) == model()


def test_flags_reach_the_groups_they_belong_to():
    options = options_of(
        "sweep-s", SweepOptions, "low.h5", "--s", "0,251", "--augment", "truncated",
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
    train = options_of("train", TrainOptions, "base", "--batch-size", "64")
    assert (train.batch_size, train.compute.batch_size) == (64, None)
    tune = options_of("tune-schedule", TuneOptions, "--steps", "4,8")
    assert (tune.steps, tune.sampling.steps) == ((4, 8), None)


def test_repeated_flags_are_kept_in_order():
    train = options_of(
        "train", TrainOptions, "b", "--set", "model.channel_mult=1,2", "--set", "a=3"
    )
    assert train.overrides == ("model.channel_mult=1,2", "a=3")


def test_a_wrong_value_names_the_flag_and_the_value():
    with pytest.raises(UsageError, match=r"--keep-s x: .*whole number"):
        options_of("sample", SampleOptions, "--keep-s", "251,x")
    with pytest.raises(UsageError, match=r"--num 0: expected 1 or more"):
        options_of("sample", SampleOptions, "--num", "0")
