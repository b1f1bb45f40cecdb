"""Mirrors cdm_cli/app.py: one line and one exit code for everything that can go wrong."""

import errno

import pytest
import torch
import typer
from typer.testing import CliRunner

from cdm_cli import errors
from cdm_cli.app import Commands, app, as_cdm_error, set_common_flags


def cdm_that(action):
    """A `cdm` whose one command does what action does."""
    group = typer.Typer(cls=Commands, add_completion=False, rich_markup_mode=None)
    group.callback()(set_common_flags)

    def command(ctx: typer.Context, out: str = "x") -> None:
        action(ctx, out)

    group.command("act")(command)
    return group


def raiser(error):
    def action(ctx, out):
        raise error

    return action


def invoke(group, *words):
    return CliRunner().invoke(group, list(words))


CODES = {
    errors.UsageError("a"): 2,
    errors.BadInputError("a"): 65,
    errors.UnsafeInputError("a"): 65,
    errors.MissingError("a"): 66,
    errors.MemoryFloorError("a"): 69,
    errors.WouldOverwriteError("a"): 73,
    errors.DiskError("a"): 74,
    errors.StoppedError("a"): 75,
    errors.DivergedError("a"): 76,
    errors.MismatchError("a"): 78,
    OSError(errno.ENOSPC, "No space left on device"): 74,
    OSError(errno.EIO, "Input/output error", "data.h5"): 74,
    FileNotFoundError(errno.ENOENT, "No such file", "data.h5"): 66,
    MemoryError(): 69,
    torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"): 69,
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"): 69,
    RuntimeError("shapes differ"): 1,
    ZeroDivisionError(): 1,
}


@pytest.mark.parametrize("error", CODES, ids=lambda error: f"{type(error).__name__}")
def test_one_line_and_the_exit_code(error):
    result = invoke(cdm_that(raiser(error)), "act")
    assert result.exit_code == CODES[error]
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("cdm: error: ")


def test_the_line_says_what_is_kept_and_what_to_type():
    error = errors.MissingError("data.h5 does not exist", kept="nothing", next="cdm prepare SRC")
    line = invoke(cdm_that(raiser(error)), "act").stderr
    assert line == "cdm: error: data.h5 does not exist — nothing — Next: cdm prepare SRC\n"


def test_a_bug_asks_for_debug_and_debug_shows_where():
    group = cdm_that(raiser(RuntimeError("shapes differ")))
    assert "rerun with --debug" in invoke(group, "act").stderr
    for words in (["act", "--debug"], ["--debug", "act"]):
        shown = invoke(group, *words).stderr
        assert "Traceback" in shown
        assert "in action" in shown


def test_flags_of_all_commands_stand_anywhere_but_after_two_dashes():
    seen = []
    group = cdm_that(lambda ctx, out: seen.append((ctx.find_root().params["quiet"], out)))
    for words in (["-q", "act"], ["act", "-q"], ["act", "--out", "y", "--quiet"], ["act"]):
        assert invoke(group, *words).exit_code == 0
    assert seen == [(True, "x"), (True, "x"), (True, "y"), (False, "x")]
    assert invoke(group, "act", "--", "-q").exit_code == 2


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["sampel"], "Did you mean 'sample'"),
        (["--nope"], "No such option: --nope"),
        (["sample", "--nope"], "No such option: --nope"),
        (["sample", "--sampler", "best"], "--sampler best: expected one of ancestral"),
        (["sample", "--sampler", "dimm"], "did you mean ddim?"),
        (["sample", "--device", "gpu"], "did you mean cuda?"),
        (["upsample", "--s", "many"], "--s many: expected a whole number"),
        (["inspect"], "Missing argument"),
        (["sample", "--num", "0"], "--num 0: "),
        (["sweep-s", "--num", "19"], "--num 19: expected 20 or more"),
        (["tune-schedule", "--num", "19"], "--num 19: expected 20 or more"),
        (["sample", "--num", "9" * 11], "expected 1073741824 or less"),
        (["sample", "--num", "9" * 30], "expected 1073741824 or less"),
        (["sample", "--num", "9" * 5000], "too many digits"),
        (["train", "base", "--seed", "9" * 20], "expected less than"),
        (["sample", "--keep-s", "1,x"], "--keep-s x: "),
        (["sweep-s", "--augment", "blurred"], "--augment blurred: "),
    ],
)
def test_a_wrong_command_line_is_one_line_and_2(words, part):
    result = invoke(app, *words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert part in result.stderr
    assert "--help" in result.stderr


def test_no_words_print_the_help():
    result = invoke(app)
    assert result.exit_code == 0
    assert "Commands:" in result.stdout


def test_ctrl_c_ends_with_130_and_a_line():
    result = invoke(cdm_that(raiser(KeyboardInterrupt())), "act")
    assert result.exit_code == 130
    assert result.stderr.count("\n") == 1


def test_errors_of_jobs_pass_unchanged():
    error = errors.DiskError("full")
    assert as_cdm_error(error) is error


def test_a_torchvision_of_another_build_is_no_bug_of_ours():
    error = as_cdm_error(RuntimeError("operator torchvision::nms does not exist"))
    assert isinstance(error, errors.MismatchError)
    assert "not of one build" in str(error)
