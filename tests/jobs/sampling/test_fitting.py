"""Mirrors cdm_cli/jobs/sampling/fitting.py: an error names the stages and stores that do fit.

Here too: headers.py.
"""

from pathlib import Path

import pytest

from cdm_cli.cascade.checkpoint import load_diffusion_stage
from cdm_cli.errors import MismatchError, MissingError
from cdm_cli.jobs.judging.judge import is_classifier_stage, read_classifier
from cdm_cli.jobs.sampling import upsample
from cdm_cli.jobs.sampling.fitting import find_base_stage
from cdm_cli.jobs.sampling.headers import read_header
from cdm_cli.options.judging import FeatureOptions
from cdm_cli.options.sampling import Compute, UpsampleOptions
from tests.asking import as_typed
from tests.jobs.judging.making import write_judge
from tests.tiny import Told, arrays_of, base_config, model, sr_config, write_stage, write_store

RUNS, CPU = Path("runs"), Compute(device="cpu")


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_store("lowres.h5", "samples", {"": arrays_of(4, [8])})
    write_stage(RUNS / "sr16", sr_config(16, 32))
    return tmp_path


def plan(**asked):
    return upsample.plan(as_typed(UpsampleOptions, s=0, compute=CPU, **asked), Told())


def advice(**asked):
    with pytest.raises(MismatchError, match="do not fit") as caught:
        plan(**asked)
    return caught.value.next


def test_the_stages_that_fit_are_named_and_the_stores(workspace):
    write_stage(RUNS / "sr", sr_config())
    assert advice(model="sr16") == "--model sr: the only stage that fits lowres.h5"
    write_store("half.h5", "samples", {"": arrays_of(130, [16])}, blocks=2)
    write_store("low 16.h5", "samples", {"": arrays_of(4, [16])})
    store = "take 'low 16.h5': the only store that fits"
    assert advice(model="sr16") == f"--model sr: the only stage that fits lowres.h5; or {store}"
    write_stage(RUNS / "sr-b", sr_config())
    several = "--model sr, or another stage that fits lowres.h5: sr-b"
    assert advice(model="sr16") == f"{several}; or {store}"


def test_where_none_fits_the_command_is_said_that_makes_one(workspace):
    assert advice(model="sr16").startswith("cdm train sr --preset tiny-sr8-16, or another one that")
    write_stage(RUNS / "base16", base_config(16))
    assert advice(model="sr16") == "cdm sample base16: it makes what runs/sr16 starts from"
    write_store("odd.h5", "samples", {"": arrays_of(4, [4])})
    write_stage(RUNS / "gray", sr_config(16, 32, model=model(32, channels=1)))
    assert advice(model="base16", lowres="odd.h5") == "cdm train sr --preset …"


BASE = "cdm upsample; or name base: the only base stage in runs/"
DRAWS = "name sr16, or another diffusion stage in runs/: base, sr"
JUDGES = "--features sr1: the only classifier in runs/"
NOBODY = as_typed(FeatureOptions, features="nobody")


@pytest.mark.parametrize(
    ("ask", "advised"),
    [
        (lambda: find_base_stage("sr", RUNS), BASE),
        (lambda: find_base_stage("sr1", RUNS), BASE.removeprefix("cdm upsample; or ")),
        (lambda: plan(model="sr1"), "--model sr: the only stage that fits lowres.h5"),
        (lambda: read_header(RUNS / "sr1"), DRAWS),
        (lambda: load_diffusion_stage("sr1", RUNS), DRAWS),
        (lambda: read_classifier("sr", RUNS), JUDGES),
        (lambda: is_classifier_stage(NOBODY, RUNS), JUDGES),
    ],
    ids=["base", "base-judge", "upsample", "header", "weights", "judge", "nobody"],
)
def test_a_stage_of_the_kind_that_is_expected_is_named(workspace, ask, advised):
    write_stage(RUNS / "base", base_config())
    write_stage(RUNS / "sr", sr_config())
    write_judge(RUNS / "sr1")
    write_stage(RUNS / "torn", sr_config())
    (RUNS / "torn/stage.json").write_text("{")
    with pytest.raises((MismatchError, MissingError)) as caught:
        ask()
    assert caught.value.next == advised


def test_without_one_of_that_kind_it_is_trained(workspace):
    with pytest.raises(MismatchError) as caught:
        find_base_stage("sr16", RUNS)
    assert caught.value.next == "cdm upsample; or cdm train base --preset …"
