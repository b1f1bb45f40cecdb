"""Mirrors cdm_cli/jobs/runtime/identity.py: what identifies samples does so in every job."""

import json
import shutil
import zipfile
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from cdm_cli.errors import UsageError, WouldOverwriteError
from cdm_cli.jobs.checking.origin import HowMade
from cdm_cli.jobs.curve import curve
from cdm_cli.jobs.judging.panel import open_panel
from cdm_cli.jobs.judging.probe_score import identify_judgement
from cdm_cli.jobs.runtime.differences import find_first_difference
from cdm_cli.jobs.runtime.identity import advise_another, check_same, complete, list_chain_fields
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.sampling import upsample
from cdm_cli.jobs.sampling.schedule_file import ScheduleFile
from cdm_cli.jobs.sweep import plan as sweep_plan
from cdm_cli.jobs.tune import plan as tune_plan
from cdm_cli.options.flag import Harmless, Identified, find_marks
from cdm_cli.options.judging import CurveOptions, FeatureOptions, TuneOptions
from cdm_cli.options.sampling import Compute, Sampling, UpsampleOptions
from cdm_cli.options.sweeping import SweepSOptions
from tests.asking import as_typed
from tests.test_old_ones_continue import HOME
from tests.tiny import Told

CPU_DEVICE = torch.device("cpu")
CPU = Compute(device="cpu", batch_size=8)
JUDGE = as_typed(FeatureOptions, features="features", compute=CPU)
NEW = Path("new")
PLAIN = Sampling(steps=2)
OTHERS = {
    "sampler": "ddim", "steps": 3, "variance": "large", "schedule": Path("schedule.json"),
    "restart_from": 20, "clip": False, "seed": 1,
}  # fmt: skip
"""Another value of every option of Sampling than that of PLAIN, for the stage `sr`."""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A workspace with a stage that takes schedules, and two searched ones of two steps."""
    with zipfile.ZipFile(HOME) as file:
        file.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = json.loads(Path("schedule.json").read_text())
    found["schedules"][0]["alpha_bar"][0] -= 0.01
    Path("other.json").write_text(json.dumps(found))
    return tmp_path


def of_curve(sampling):
    options = as_typed(
        CurveOptions,
        stage="sr",
        weights=("ema",),
        s=5,
        num=20,
        out=NEW,
        judge=JUDGE,
        sampling=sampling,
    )
    with ExitStack() as stack:
        return curve.plan_work(options, stack, Told()).probe.identity


def of_sweep(sampling):
    options = as_typed(SweepSOptions, s=(5,), num=20, out=NEW, judge=JUDGE, sampling=sampling)
    with ExitStack() as stack:
        return sweep_plan.plan_work(options, stack, Told()).identity


def of_search(sampling):
    options = as_typed(
        TuneOptions, steps=(2,), s=5, num=20, out=Path("new.json"), judge=JUDGE, sampling=sampling
    )
    with ExitStack() as stack:
        return tune_plan.plan_work(options, stack, Told()).identity


def of_store(sampling):
    options = as_typed(UpsampleOptions, s=5, num=20, sampling=sampling, compute=CPU)
    with upsample.open_store(options.lowres) as store:
        work = upsample.plan_work(options, store)
        return list_chain_fields(work.header.config, work.chain, sampling.seed)


JOBS = {"curve": of_curve, "sweep": of_sweep, "search": of_search, "store": of_store}
# A search makes schedules for the steps that it is told itself.
REFUSED = {("search", "schedule"), ("search", "restart_from")}
OF_THE_JOB = {("search", "steps")}


APART = {*find_marks(Sampling, Harmless), *find_marks(Sampling, Identified)} - {*OTHERS}
OPTIONS = sorted({field.name for field in fields(Sampling)} - APART)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_sampling_identifies_samples(job, option):
    """An option that is new must change what `list_chain_fields` says, or be declared Harmless."""
    assert option in OTHERS, f"say here which other value {option} has, or declare it Harmless"
    other = replace(PLAIN, **{option: OTHERS[option]})
    if (job, option) in REFUSED:
        with pytest.raises(UsageError, match=f"--{option.replace('_', '-')}"):
            JOBS[job](other)
    elif (job, option) not in OF_THE_JOB:
        assert find_first_difference(JOBS[job](PLAIN), JOBS[job](other)), option


@pytest.mark.parametrize("job", ["curve", "sweep", "store"])
def test_schedules_of_equal_length_are_told_apart(job):
    first, second = (replace(PLAIN, schedule=Path(name)) for name in
                     ("schedule.json", "other.json"))  # fmt: skip
    found = find_first_difference(JOBS[job](first), JOBS[job](second))
    assert found is not None
    assert found.where == "alpha_bar[0]"
    shutil.copy("schedule.json", "copy.json")
    again = replace(PLAIN, schedule=Path("copy.json"))
    assert find_first_difference(JOBS[job](first), JOBS[job](again)) is None


def test_a_selection_is_identified_by_the_same_fields():
    """`train --select` records what its probe says, and the judge."""
    options = as_typed(
        CurveOptions, stage="sr", weights=("ema",), s=5, num=20, out=NEW, judge=JUDGE
    )
    with ExitStack() as stack:
        probe = curve.plan_work(options, stack, Told()).probe
    panel = open_panel(JUDGE, 8, Session(CPU_DEVICE), features=False)
    plain, other = (
        identify_judgement(probe, panel),
        replace(probe, chain=replace(probe.chain, clip=False)),
    )
    assert find_first_difference(plain, identify_judgement(other, panel))
    assert set(probe.identity) < set(plain)


def test_a_replay_reads_every_field():
    fields = of_store(PLAIN)
    assert set(fields) - {"resolution", "channels", "process"} <= set(HowMade.model_fields)


def test_only_what_every_old_file_had_is_filled_in():
    here = {**of_curve(PLAIN), "stage": "x"}
    old = {name: here[name] for name in ("sampler", "steps", "clip", "seed", "stage", "num", "s")}
    old |= {"lowres": "val", "variance": "small"}
    assert complete(old, here) == here
    assert complete(here, here) == here
    restarted = {**of_curve(replace(PLAIN, restart_from=20)), "stage": "x"}
    found = find_first_difference(complete(old, restarted), restarted)
    assert str(found) == "--restart-from was none, is 20"
    assert complete({**old, "variance": None}, here)["variance"] is None
    assert complete({**old, "variance": ""}, here)["variance"] == "small"


def test_a_refusal_names_what_differs():
    with pytest.raises(WouldOverwriteError, match=r"x is of another sweep: digest was 0{12}…, is"):
        check_same(Path("x"), "sweep", {"digest": 64 * "0"}, {"digest": "1"})


def test_a_refusal_advises_a_name_that_is_free():
    Path("up-2.h5").touch()
    assert advise_another(Path("up.h5")) == "-o up-3.h5"
    assert advise_another(Path("two words")) == "-o 'two words-2'"
    Path("swept").mkdir()
    point = Path("swept/none-s0000.h5")
    for file in (point, Path("swept/sweep.json")):
        file.touch()
    assert advise_another(point) == "-o swept-2"  # a sweep's -o is its directory
    for own in ("swept/t.csv", "swept/none-s0000.npz"):  # of eval and export, beside the sweep's
        Path(own).touch()
        beside = Path(own).with_stem(f"{Path(own).stem}-2")
        assert advise_another(Path(own)) == f"-o {beside}"
    with pytest.raises(WouldOverwriteError) as caught:
        check_same(point, "sampling", {"seed": 0}, {"seed": 1})
    assert caught.value.next == "-o swept-2"


def test_the_two_schedules_are_as_long():
    read = [ScheduleFile.model_validate_json(Path(name).read_text()) for name in
            ("schedule.json", "other.json")]  # fmt: skip
    assert len({len(file.schedules[0].alpha_bar) for file in read}) == 1
