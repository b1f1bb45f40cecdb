"""Mirrors cdm_cli/jobs/sampling/defaults.py: what is applied to a stage, and what it changes.

Here too: in_memory.py.
"""

import json
from pathlib import Path

import pytest

import cdm_cli
from cdm_cli.cascade.checkpoint import load_stage
from cdm_cli.cascade.snapshot import save_ema
from cdm_cli.cascade.stagefile import read_stage_file, write_stage_file
from cdm_cli.data.store import open_store
from cdm_cli.errors import BadInputError, MismatchError, StoppedError, UsageError
from cdm_cli.jobs.runtime.lock import hold_lock
from cdm_cli.jobs.runtime.same_stage import compute_config_digest
from cdm_cli.jobs.sampling import upsample
from cdm_cli.jobs.sampling.defaults import apply, run
from cdm_cli.jobs.sampling.headers import read_header, read_weights_digest
from cdm_cli.jobs.sampling.schedule_file import ScheduleFile, Searched
from cdm_cli.options.sampling import Compute, Sampling, UpsampleOptions
from cdm_cli.options.workspace import DefaultsOptions
from cdm_cli.plans import Applied
from tests.asking import as_typed
from tests.tiny import (
    Told,
    arrays_of,
    base_config,
    contents,
    net_of,
    sr_config,
    write_stage,
    write_store,
)

CPU = Compute(device="cpu", batch_size=4)
SR = Path("runs/sr")
FEW = Applied(s=5, augment="non-truncated", sampler="ddim", steps=2, by="sweep", found="It is.")
ALL = Applied(s=3, augment="non-truncated", steps=0, by="other")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_stage(SR, sr_config())
    write_store("lowres.h5", "samples", {"": arrays_of(6, [8])})


def applied(found=FEW, told=None):
    return apply(SR, found, read_weights_digest(SR), told or Told())


def options(**changes):
    return as_typed(UpsampleOptions, **({"compute": CPU} | changes))


def upsampled(told=None, out="samples.h5", **changes):
    """Return what decides the samples of a store that upsample made."""
    upsample.run(options(out=out, **changes), told or Told())
    with open_store(out) as store:
        return store.provenance["identity"]


def test_what_was_found_for_other_weights_is_said_to_be():
    """A stage that was trained on keeps its defaults."""
    applied()
    told = Told()
    upsampled(told, out="same.h5")
    assert not any("other weights" in line for line in told.lines)
    save_ema(SR, net_of(sr_config(), 7).state_dict(), step=2)
    upsampled(told, out="other.h5")
    assert any("which sweep found for other weights than ema of now" in line for line in told.lines)


def test_upsample_takes_what_was_applied_and_says_so():
    with pytest.raises(UsageError, match="--s is missing"):
        upsampled()
    applied()
    told = Told()
    found = upsampled(told)
    assert (found["s"], found["sampler"], found["steps"]) == (5, "ddim", 2)
    (line,) = [line for line in told.lines if "nothing else is asked" in line]
    assert "s = 5, ddim, 2 steps" in line
    assert "cdm defaults runs/sr" in line


def test_steps_that_the_stage_keeps_a_schedule_for_come_with_its_sampler():
    """What `tune-schedule --apply` found is more than an applied sampler at evenly spread times."""
    applied()
    one = Searched(
        steps=3, sampler="dpm-solver++", variance="small", times=(18, 9, 2),
        stochasticity=(1.0, 0.4, 0.0), score=1, baseline=2, trials=1,
    )  # fmt: skip
    file = ScheduleFile(
        cdm_version="0", stage="sr", stage_digest="",
        config_digest=compute_config_digest(sr_config()), lowres="",
        lowres_digest="", metric="fid", convention={}, s=7, num=2, seed=0,
        schedules=(one,),
    )  # fmt: skip
    (SR / "schedules").mkdir()
    (SR / "schedules/steps-3.json").write_text(file.model_dump_json())
    (SR / "schedules/.steps-4.json.0.partial").touch()  # a kill left it
    assert taken().schedules == [3]
    told = Told()
    found = upsampled(told, sampling=Sampling(steps=3))
    assert (found["s"], found["sampler"], found["times"]) == (5, "dpm-solver++", [2, 9, 18])
    assert found["stochasticity"] == [1.0, 0.4, 0.0]
    assert any("was searched at s = 7, this is at s = 5" in line for line in told.lines)
    assert upsampled(out="few.h5")["sampler"] == "ddim"
    named = upsampled(out="named.h5", sampling=Sampling(steps=3, sampler="ddim"))
    assert (named["sampler"], named["times"]) == ("ddim", [1, 10, 20])


def test_it_is_what_the_same_flags_give():
    applied()
    upsampled(out="default.h5")
    upsampled(out="typed.h5", s=5, sampling=Sampling(sampler="ddim", steps=2))
    assert contents("default.h5") == contents("typed.h5")
    assert "--s 5" in open_store("default.h5").provenance["command"]


@pytest.mark.parametrize(
    ("changes", "sampler", "steps"),
    [
        ({}, "ddim", 2),
        ({"steps": 4}, "ddim", 4),
        ({"sampler": "ancestral"}, "ancestral", 3),
        ({"sampler": "ddim"}, "ddim", 2),
    ],
)
def test_what_is_asked_goes_before_what_was_applied(changes, sampler, steps):
    applied()
    found = upsampled(s=7, sampling=Sampling(**changes))
    assert (found["s"], found["sampler"], found["steps"]) == (7, sampler, steps)


def test_the_stage_stays_what_it_was():
    """Its digest, which stores, sweeps and curves record, and its own defaults."""
    digest, own = load_stage(SR, Path()).digest, read_header(SR).config
    first = upsampled(out="before.h5", s=5)
    applied()
    assert load_stage(SR, Path()).digest == digest
    assert compute_config_digest(read_header(SR).config) == compute_config_digest(own)
    assert read_header(SR).config == own
    asked = Sampling(sampler="ancestral", steps=3)
    assert upsampled(out="before.h5", s=5, sampling=asked) == first


def test_truncated_is_applied_with_its_s_alone():
    applied(FEW.model_copy(update={"augment": "truncated"}))
    with pytest.raises(MismatchError, match="no z_s for s = 5"):
        upsampled()
    assert upsampled(s=5)["augment"] == "non-truncated"


def taken(number=None):
    return run(as_typed(DefaultsOptions, stage="sr", take=number), Told())


def test_one_goes_back_to_what_was_applied_before_and_to_the_stages_own():
    applied()
    applied(ALL)
    assert (taken().s, taken().steps, taken().in_force) == (3, 20, 2)
    for _ in range(2):  # the same command again is done already
        now = taken(1)
        assert (now.s, now.sampler, now.steps, now.in_force) == (5, "ddim", 2, 1)
    assert [(row["takes"], row["by"], row["in_force"]) for row in now.applied] == [
        ("s = 5, ddim, 2 steps", "sweep", True), ("s = 3, all steps", "other", False),
    ]  # fmt: skip
    assert upsampled()["sampler"] == "ddim"
    now = taken(0)
    assert (now.s, now.sampler, now.steps, now.in_force) == (None, "ancestral", 3, 0)
    with pytest.raises(UsageError, match="--s is missing"):
        upsampled(out="other.h5")
    before = (SR / "stage.json").read_bytes()
    with pytest.raises(UsageError, match="2 settings were applied"):
        taken(3)
    with hold_lock(SR), pytest.raises(StoppedError, match="is being trained"):
        taken(1)
    assert (SR / "stage.json").read_bytes() == before


def test_a_number_that_there_is_not_is_a_damaged_file():
    file = read_stage_file(SR)
    write_stage_file(SR, file.model_copy(update={"in_force": 1}))
    with pytest.raises(BadInputError, match="in_force = 1 of 0 applied"):
        read_header(SR)


def test_both_are_told_and_the_same_again_is_kept_once():
    told = Told()
    applied(told=told)
    assert "takes s = 5, ddim, 2 steps unless" in told.lines[0]
    back = "cdm defaults runs/sr --take 0 goes back"
    assert told.lines[1] == f"before: no s (--s says it), ancestral, 3 steps; {back}"
    told = Told()
    applied(told=told)
    assert len(read_header(SR).applied) == len(told.lines) == 1
    applied(ALL)
    applied(told=told)
    assert told.lines[-1].endswith("--take 2 goes back")
    assert len(read_header(SR).applied) == 2


def test_a_stage_that_is_trained_is_left_alone():
    before = (SR / "stage.json").read_bytes()
    with hold_lock(SR), pytest.raises(StoppedError, match="is being trained"):
        applied()
    was = read_weights_digest(SR)
    save_ema(SR, net_of(sr_config(), seed=1).state_dict(), step=2)
    with pytest.raises(MismatchError, match="was trained on since"):
        apply(SR, FEW, was, Told())
    assert (SR / "stage.json").read_bytes() == before


def test_stages_without_a_choice_have_defaults_too():
    write_stage(Path("runs/base"), base_config())
    found = run(as_typed(DefaultsOptions, stage="base"), Told())
    assert (found.s, found.augment, found.steps) == (None, None, 4)


def test_what_was_applied_is_in_the_file_and_nowhere_else():
    applied()
    file = json.loads((SR / "stage.json").read_text())
    assert file["applied"][0]["s"] == 5
    assert file["plan"]["stage"]["sampling"]["steps"] == 3


def test_the_api_takes_it_too():
    upsample.run(options(s=5, sampling=Sampling(sampler="ddim", steps=2)), Told())
    applied()
    stage = cdm_cli.load_stage("sr", device="cpu", batch_size=4)
    given, made = cdm_cli.read("lowres.h5"), cdm_cli.read("samples.h5")
    with pytest.warns(UserWarning, match="upsample: s = 5, ddim, 2 steps where nothing else"):
        found = cdm_cli.upsample(stage, given.images, given.labels, ids=given.ids)
    assert (found.images == made.images).all()
