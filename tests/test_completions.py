"""The scripts in completions/ are current, and complete what a user types."""

import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest
import typer

import cdm_cli
from cdm_cli.app import app
from cdm_cli.commands._completions import SCRIPTS, commands_of
from cdm_cli.names import Sampler
from cdm_cli.presets import PRESETS

HOME = Path(cdm_cli.__file__).parent.parent / "completions"
GROUP = typer.main.get_command(app)
SHELLS = list(SCRIPTS)

CASES = [
    ("cdm sam", {"sample"}),
    ("cdm -q sam", {"sample"}),
    ("cdm sample --sampler ", {*get_args(Sampler)}),
    ("cdm sample --sampler d", {"ddim", "dpm-solver++"}),
    ("cdm sample --keep", {"--keep-s"}),
    ("cdm train x --preset tiny-b", {name for name in PRESETS if name.startswith("tiny-b")}),
    ("cdm train x --seed 3 --preset imagenet-sr64-1", {"imagenet-sr64-128"}),
    ("cdm upsample --model s", {"sr", "sr2"}),
    ("cdm upsample low.h5 --num ", set()),
    ("cdm eval f", {"fid"}),
    ("cdm eval ac", {"accuracy"}),
    ("cdm eval fid --features inc", {"inception"}),
    ("cdm eval el", {"elbo"}),
    ("cdm eval elbo b", {"base"}),
    ("cdm eval elbo base s", {"sr", "sr2"}),
    ("cdm eval elbo base --ter", {"--terms"}),
    ("cdm eval --num 5 --ter", set()),
    ("cdm eval checkpoints b", {"base"}),
    ("cdm completions z", {"zsh"}),
]


@pytest.fixture
def workspace(tmp_path):
    for name in ("base", "sr", "sr2"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "stage.json").touch()
    (tmp_path / "runs" / "no-stage").mkdir()
    (tmp_path / "low.h5").touch()
    return tmp_path


def need(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_scripts_are_current(shell):
    path = HOME / f"cdm.{shell}"
    told = f"run: cdm completions {shell} > completions/{path.name}"
    assert path.read_text() == SCRIPTS[shell](commands_of(GROUP)), told


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_reads_its_script(shell):
    need(shell)
    subprocess.run([shell, "-n", HOME / f"cdm.{shell}"], check=True)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_flag_is_in_the_script(shell):
    text = (HOME / f"cdm.{shell}").read_text()
    for command in commands_of(GROUP):
        for flag in command.flags:
            for name in flag.names:
                assert (name.lstrip("-") if shell == "fish" else name) in text


BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _cdm; printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(("line", "expected"), CASES, ids=[line for line, _ in CASES])
def test_bash_completes(line, expected, workspace):
    need("bash")
    done = subprocess.run(
        ["bash", "-c", BASH, "-", HOME / "cdm.bash", *line.split(" ")],
        cwd=workspace, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert set(done.stdout.split()) == expected


@pytest.mark.parametrize(("line", "expected"), CASES, ids=[line for line, _ in CASES])
def test_fish_completes(line, expected, workspace):
    need("fish")
    done = subprocess.run(
        ["fish", "-c", f"source {HOME / 'cdm.fish'}; complete -C '{line}'"],
        cwd=workspace, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert {found.split("\t")[0] for found in done.stdout.splitlines()} == expected


def test_no_script_runs_the_program():
    """TAB must answer at once: no `$(cdm …)`, no python."""
    for shell in SHELLS:
        text = (HOME / f"cdm.{shell}").read_text()
        assert "$(cdm" not in text
        assert "(cdm" not in text
        assert "python" not in text
