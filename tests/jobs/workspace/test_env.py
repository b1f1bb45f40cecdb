"""Mirrors cdm_cli/jobs/workspace/env.py, and what the variables of the environment do."""

import json
import os
import subprocess
import sys
from importlib import metadata

import pytest
from typer.testing import CliRunner

from cdm_cli.__version__ import __version__
from cdm_cli.app import app
from cdm_cli.jobs.workspace import env
from tests.data.stores import filled, samples_spec
from tests.tiny import base_config, write_stage


def told(monkeypatch, **environ):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, ["env", "--device", "cpu", "--json"])
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_versions_device_and_precision_are_told(monkeypatch):
    found = told(monkeypatch)
    assert found["cdm"] == __version__
    assert found["package torch"] == metadata.version("torch")
    assert found["device"].startswith("CPU")
    assert found["precision"] == "auto is fp32"


def test_no_secret_and_no_path_outside_the_workspace(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = told(
        monkeypatch, CDM_RUNS="/home/someone/runs", CDM_DATA=str(tmp_path / "in/data.h5"),
        AWS_SECRET_ACCESS_KEY="hunter2", HOME="/home/someone", OMP_NUM_THREADS="3",
    )  # fmt: skip
    assert found["environment CDM_RUNS"] == env.OUTSIDE
    assert found["environment CDM_DATA"] == "in/data.h5"
    assert found["environment OMP_NUM_THREADS"] == "3"
    text = json.dumps(found)
    assert not [word for word in ("hunter2", "someone", str(tmp_path)) if word in text]


def test_a_broken_torch_is_told_and_no_error(monkeypatch):
    def broken(choice):
        raise ImportError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr("cdm_cli.jobs.runtime.device.pick_device", broken)
    assert told(monkeypatch)["device"] == "not known: ImportError"


def said(monkeypatch, *words, **environ):
    """Return the exit code of a command in an environment, and the error that it prints."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, done.stderr


@pytest.mark.parametrize(
    ("typed", "variable", "taken"),
    [
        ([], "there.h5", "there.h5"),
        (["--ref", "typed.h5"], "there.h5", "typed.h5"),
        ([], "", "data.h5"),
    ],
)
def test_data_are_where_the_environment_says(typed, variable, taken, tmp_path, monkeypatch):
    """What is typed counts more."""
    monkeypatch.chdir(tmp_path)
    write_stage(tmp_path / "base", base_config(channel_mult=(1,)))
    code, line = said(monkeypatch, "eval", "elbo", "base", *typed, CDM_DATA=variable)
    assert code == 66
    assert f"{taken} does not exist" in line


def test_the_device_is_what_the_environment_says(monkeypatch):
    code, line = said(monkeypatch, "sample", CDM_DEVICE="gpu")
    assert code == 2
    assert "auto, cpu, cuda" in line


def test_stages_are_where_the_environment_says(tmp_path):
    """Which is asked once, by whoever starts: hence a process of its own."""
    write_stage(tmp_path / "elsewhere/base", base_config(channel_mult=(1,)))
    here = tmp_path / "here"
    here.mkdir()
    filled(here / "a.h5", samples_spec())
    done = subprocess.run(
        [sys.executable, "-m", "cdm_cli", "ls"], cwd=here, capture_output=True, text=True,
        env=os.environ | {"CDM_RUNS": "../elsewhere"},
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].startswith("base")
