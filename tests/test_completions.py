"""The scripts in completions/ are current, and complete what a user types."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest
import typer

import cdm_cli
from cdm_cli.app import app
from cdm_cli.commands._completions import SCRIPTS, list_commands
from cdm_cli.names import Sampler
from cdm_cli.presets import PRESETS

HOME = Path(cdm_cli.__file__).parent.parent / "completions"
GROUP = typer.main.get_command(app)
SHELLS = list(SCRIPTS)

CASES = [
    ("cdm sam", {"sample"}),
    ("cdm -q sam", {"sample"}),
    ("cdm --verb", {"--verbose"}),
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
    ("cdm help tr", {"train"}),
    ("cdm train x --set model.drop", {"model.dropout="}),
    ("cdm train x --set training.ke", {"training.keep="}),
    ("cdm upsample lo", {"low.h5"}),
    ("cdm eval fid --against ", {"low.h5", "runs"}),
    ("cdm eval fid lo", {"low.h5"}),
    ("cdm eval fid low.h5 lo", {"low.h5"}),
    ("cdm grid low.h5 lo", {"low.h5"}),
    ("cdm merge lo", {"low.h5"}),
    ("cdm sample --weights ", {"ema", "best", "step-00000002", "step-00000004"}),
    ("cdm sample sr --weights step", {"step-00000004"}),
    ("cdm sample base --classes ri", {"ring"}),
    ("cdm sample base --classes 3,di", {"3,disk"}),
]


STAGE = json.dumps({"data": {"classes": ["disk", "ring", "$(touch ran)", "a b"]}}, indent=2)


@pytest.fixture
def workspace(tmp_path):
    for name in ("base", "sr", "sr2"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "stage.json").write_text(STAGE if name == "base" else "{}")
    (tmp_path / "runs/base/checkpoints/step-00000002").mkdir(parents=True)
    (tmp_path / "runs/sr/checkpoints/step-00000004").mkdir(parents=True)
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
    assert path.read_text() == SCRIPTS[shell](list_commands(GROUP)), told


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_reads_its_script(shell):
    need(shell)
    subprocess.run([shell, "-n", HOME / f"cdm.{shell}"], check=True)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_flag_is_in_the_script(shell):
    text = (HOME / f"cdm.{shell}").read_text()
    for command in list_commands(GROUP):
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


def in_bash(line, workspace):
    return subprocess.run(
        ["bash", "-c", BASH, "-", HOME / "cdm.bash", *line.split(" ")],
        cwd=workspace, capture_output=True, text=True, check=True,
    )  # fmt: skip


@pytest.mark.parametrize("line", ["cdm sample ", "cdm upsample --model ", "cdm sample --weights ",
                                  "cdm sample --classes ", "cdm upsample ", "cdm ls "])  # fmt: skip
@pytest.mark.parametrize("name", ["$(touch ran)", "`touch ran`", "a;touch ran", "a b", "-x"])
def test_a_name_of_a_stranger_runs_nothing(line, name, workspace):
    """What is offered is quoted: neither TAB nor Enter behind it runs what a name says."""
    need("bash")
    stage = workspace / "runs" / name
    (stage / "checkpoints/step-00000009").mkdir(parents=True)
    (stage / "stage.json").write_text(STAGE)
    (workspace / f"{name}.h5").touch()
    (workspace / f"{name} dir").mkdir()
    done = in_bash(line, workspace)
    assert done.stderr == ""
    assert not (workspace / "ran").exists()
    offered = [word for word in done.stdout.splitlines() if word and not word.endswith(".h5")]
    for word in offered if line != "cdm upsample " else []:  # readline quotes file names itself
        subprocess.run(["bash", "-c", f": {word}"], cwd=workspace, check=True)
    assert not (workspace / "ran").exists()


def test_stages_are_looked_for_where_the_environment_says(workspace, monkeypatch):
    need("bash")
    (workspace / "runs").rename(workspace / "elsewhere")
    monkeypatch.setenv("CDM_RUNS", "elsewhere")
    assert set(in_bash("cdm sample b", workspace).stdout.split()) == {"base"}
    assert "step-00000002" in in_bash("cdm sample --weights s", workspace).stdout


@pytest.mark.parametrize(("line", "expected"), CASES, ids=[line for line, _ in CASES])
def test_fish_completes(line, expected, workspace):
    need("fish")
    done = subprocess.run(
        ["fish", "-c", f"source {HOME / 'cdm.fish'}; complete -C '{line}'"],
        cwd=workspace, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = (line.split("\t")[0] for line in done.stdout.splitlines())
    assert {name.removesuffix("/") for name in found} == expected  # fish marks directories


@pytest.mark.parametrize("flag", ["--classes", "--weights"])
@pytest.mark.parametrize("runs", ["runs", "no-runs"])
def test_fish_says_nothing_of_what_is_no_stage(flag, runs, workspace, monkeypatch):
    need("fish")
    monkeypatch.setenv("CDM_RUNS", runs)
    (workspace / "runs/notes.txt").touch()
    done = subprocess.run(
        ["fish", "-c", f"source {HOME / 'cdm.fish'}; complete -C 'cdm sample {flag} '"],
        cwd=workspace, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""


def test_no_script_runs_the_program():
    """TAB must answer at once: no `$(cdm …)`, no python."""
    for shell in SHELLS:
        text = (HOME / f"cdm.{shell}").read_text()
        assert "$(cdm" not in text
        assert "(cdm" not in text
        assert "python" not in text
