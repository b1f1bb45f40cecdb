"""Mirrors cdm_cli/jobs/tune_schedule.py: trials are paired, logged one by one, never repeated."""

import shutil

import pytest

from cdm_cli.jobs import evaluate, upsample
from cdm_cli.jobs.tune_schedule import run
from cdm_cli.options import EvalOptions, Sampling, TuneOptions, UpsampleOptions
from tests.jobs.sweeping import CPU, JUDGE, write_workspace
from tests.tiny import Told, continuous_config

NUM = 24


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        write_workspace(home, continuous_config())
    return home


@pytest.fixture
def workspace(made, tmp_path, monkeypatch):
    home = tmp_path / "home"
    shutil.copytree(made, home)
    monkeypatch.chdir(home)
    return home


def options(**changes):
    return TuneOptions(**({"steps": (2,), "num": NUM, "trials": 3, "judge": JUDGE} | changes))


def test_upsample_on_the_file_gives_the_score(workspace):
    (found,) = run(options(), Told()).schedules
    asked = UpsampleOptions(num=NUM, compute=CPU, sampling=Sampling(schedule="schedule.json"))
    upsample.run(asked, Told())
    table = evaluate.run(EvalOptions(metrics=("fid",), judge=JUDGE), Told()).table
    assert table.value("fid", "train") == pytest.approx(found.fid, rel=1e-9)
    assert found.fid <= found.baseline
