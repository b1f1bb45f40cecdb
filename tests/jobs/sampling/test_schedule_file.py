"""Mirrors cdm_cli/jobs/sampling/schedule_file.py.

A schedule is used as it was searched, or that is said.
"""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from cdm_cli.cascade.snapshot import save_ema
from cdm_cli.errors import BadInputError, UsageError
from cdm_cli.jobs.curve import curve
from cdm_cli.jobs.elbo import elbo
from cdm_cli.jobs.sampling import upsample
from cdm_cli.jobs.sampling.headers import read_weights_digest
from cdm_cli.jobs.sampling.schedule_file import ScheduleFile, choose_schedule
from cdm_cli.jobs.sweep import sweep as sweep_s
from cdm_cli.options.judging import CurveOptions, ElboOptions, FeatureOptions
from cdm_cli.options.sampling import Compute, Sampling, UpsampleOptions
from cdm_cli.options.sweeping import SweepSOptions
from tests.asking import as_typed
from tests.test_old_ones_continue import HOME
from tests.tiny import Told

CPU = Compute(device="cpu", batch_size=8)
JUDGE = as_typed(FeatureOptions, features="features", compute=CPU)
SEARCHED = Sampling(schedule=Path("schedule.json"))  # at s = 5


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    with zipfile.ZipFile(HOME) as file:
        file.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("steps", "advised"), [(1, 2), (9, 4)])
def test_of_other_steps_the_nearest_are_advised(steps, advised):
    file = ScheduleFile.model_validate_json(Path("schedule.json").read_text())
    both = tuple(file.schedules[0].model_copy(update={"steps": n}) for n in (2, 4))
    with pytest.raises(UsageError) as caught:
        choose_schedule(file.model_copy(update={"schedules": both}), steps, Path("schedule.json"))
    assert caught.value.next == f"--steps {advised}"


def upsampled(s, told, sampling=SEARCHED):
    out = Path("new.h5")
    upsample.plan(
        as_typed(UpsampleOptions, s=s, num=8, sampling=sampling, compute=CPU, out=out), told
    )


def test_times_that_the_stage_does_not_have_are_refused():
    file = ScheduleFile.model_validate_json(Path("schedule.json").read_text())
    late = file.schedules[0].model_copy(
        update={"steps": 2, "times": (1000, 5), "alpha_bar": None, "stochasticity": None}
    )
    changed = file.model_copy(update={"schedules": (late,)})
    Path("late.json").write_text(changed.model_dump_json())
    with pytest.raises(UsageError, match=r"--schedule: it has times 5\.\.1000, the stage 1\.\.20"):
        upsampled(5, Told(), Sampling(schedule=Path("late.json"), steps=2))


def run_upsampling(s, told, sampling=SEARCHED):
    digest = read_weights_digest(Path("runs/sr"))
    out = Path(f"{s}-{bool(sampling.schedule)}-{sampling.clip}-{digest}.h5")
    upsample.run(
        as_typed(UpsampleOptions, s=s, num=8, sampling=sampling, compute=CPU, out=out), told
    )


def swept(s, told, sampling=SEARCHED):
    options = as_typed(
        SweepSOptions, s=(s,), num=20, sampling=sampling, judge=JUDGE, out=Path("new")
    )
    sweep_s.plan(options, told)


def judged(s, told, sampling=SEARCHED):
    options = as_typed(CurveOptions, 
        stage="sr", weights=("ema",), s=s, num=20, sampling=sampling, judge=JUDGE, out=Path("new")
    )  # fmt: skip
    curve.plan(options, told)


def bounded(s, told, sampling=SEARCHED):
    elbo.plan(as_typed(ElboOptions, stages=("sr",), s=(s,), sampling=sampling, compute=CPU), told)


@pytest.mark.parametrize("used", [upsampled, run_upsampling, swept, judged, bounded])
def test_another_s_than_that_of_the_search_is_said(used):
    told, says = Told(), "schedule.json was searched at s = 5, this is at s = 7"
    used(7, told)
    assert any(says in line for line in told.lines)
    for s, sampling in ((5, SEARCHED), (7, Sampling())):
        told = Told()
        used(s, told, sampling)
        assert not any("was searched" in line for line in told.lines)


@pytest.mark.parametrize("used", [upsampled, run_upsampling, swept, judged, bounded])
def test_other_weights_than_those_of_the_search_are_said(used):
    """A schedule is used as well after the stage was trained on, or with --weights best."""
    told, says = Told(), "schedule.json was searched with other weights than ema of runs/sr"
    used(5, told)
    assert not any(says in line for line in told.lines)
    state = load_file("runs/sr/ema.safetensors")
    save_ema(Path("runs/sr"), {name: value + 0.01 for name, value in state.items()}, step=9)
    used(5, told)
    assert any(says in line for line in told.lines)


@pytest.mark.parametrize("used", [upsampled, run_upsampling, swept, judged, bounded])
@pytest.mark.parametrize(("clip", "lines"), [(None, 0), (True, 0), (False, 1)])
def test_another_clipping_than_that_of_the_search_is_said(used, clip, lines):
    """None: a file of an earlier version, which did not say it."""
    searched = json.loads(Path("schedule.json").read_text())
    assert "clip" not in searched
    if clip is not None:
        Path("schedule.json").write_text(json.dumps(searched | {"clip": clip}))
    told, unclipped = Told(), Told()
    used(5, told)
    says = "schedule.json was searched with --no-clip, this is with --clip: --no-clip takes it as"
    assert sum(says in line for line in told.lines) == lines
    used(5, unclipped, replace(SEARCHED, clip=False))
    says = "schedule.json was searched with --clip, this is with --no-clip: --clip takes it as"
    assert any(says in line for line in unclipped.lines) == (clip is True)


@pytest.mark.parametrize("content", ['{"a": 1}', "[1]"])
def test_another_file_is_no_schedule(content):
    Path("other.json").write_text(content)
    with pytest.raises(BadInputError, match=r"other\.json: .* Next: a file that cdm tune-schedule"):
        upsampled(5, Told(), Sampling(schedule=Path("other.json")))
