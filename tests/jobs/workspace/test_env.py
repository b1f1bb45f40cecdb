"""Mirrors cdm_cli/jobs/workspace/env.py, and what the variables of the environment do."""

import json
import os
import subprocess
import sys
from importlib import metadata

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


def cdm(cwd, *words, **environ):
    done = subprocess.run(
        [sys.executable, "-m", "cdm_cli", *words], cwd=cwd, capture_output=True, text=True,
        env=os.environ | environ,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_stages_and_data_are_where_the_environment_says(tmp_path):
    """What is typed counts more; the recorded command says what was taken."""
    write_stage(tmp_path / "elsewhere/base", base_config(channel_mult=(1,)))
    here = tmp_path / "here"
    here.mkdir()
    filled(here / "a.h5", samples_spec())
    code, shown, _ = cdm(here, "ls", CDM_RUNS="../elsewhere")
    assert code == 0
    assert shown.splitlines()[1].startswith("base")
    for words, environ, taken in (
        ([], {"CDM_DATA": "there.h5"}, "there.h5"),
        (["--ref", "typed.h5"], {"CDM_DATA": "there.h5"}, "typed.h5"),
        ([], {"CDM_DATA": ""}, "data.h5"),
    ):
        shown = cdm(here, "eval", "elbo", "../elsewhere/base", *words, **environ)[2]
        assert f"{taken} does not exist" in shown
    code, _, shown = cdm(here, "sample", CDM_DEVICE="gpu")
    assert code == 2
    assert "auto, cpu, cuda" in shown
