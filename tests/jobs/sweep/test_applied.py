"""Mirrors cdm_cli/jobs/sweep/applied.py: what is chosen becomes the default of `cdm upsample`."""

from pathlib import Path

import pytest

from cdm_cli.cascade.snapshot import save_ema
from cdm_cli.data.store import open_store
from cdm_cli.errors import MismatchError, UsageError, WouldOverwriteError
from cdm_cli.jobs.sampling import upsample
from cdm_cli.jobs.sampling.headers import read_header
from cdm_cli.jobs.sweep.applied import make_applied, say_how_sure
from cdm_cli.jobs.sweep.choice import Chosen
from cdm_cli.jobs.sweep.plan import Sweep
from cdm_cli.jobs.sweep.sweep import run
from cdm_cli.options.sampling import Sampling, UpsampleOptions
from cdm_cli.options.sweeping import SweepOptions, SweepSOptions
from tests.asking import as_typed
from tests.jobs.sweep.sweeping import CPU, JUDGE, files, judged_images
from tests.tiny import Told, net_of, sr_config

SR = Path("runs/sr")
FEW = {"s": (0, 5), "augments": ("non-truncated",), "num": 20, "judge": JUDGE}


pytestmark = pytest.mark.usefixtures("workspace")


def swept(told=None, options=SweepSOptions, **changes):
    return run(as_typed(options, **(FEW | changes)), told or Told())


def in_force():
    return read_header(SR).default


def test_a_finished_sweep_only_applies(monkeypatch):
    before, seen = files(Path("sweep")), judged_images(monkeypatch)
    told = Told()
    chosen = swept(told, apply=True).chosen
    after = files(Path("sweep"))
    assert not seen
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"sweep.json", "report.html"}  # the command
    found = in_force()
    assert (found.s, found.augment, found.sampler, found.steps) == (
        chosen.s, "non-truncated", None, None,
    )  # fmt: skip
    assert (found.by, found.found) == ("sweep", swept().conclusion)
    assert say_how_sure(chosen) in told.lines


def test_without_it_nothing_is_applied():
    swept()
    assert in_force() is None


def test_upsample_makes_the_images_of_the_chosen_point():
    chosen = swept(
        options=SweepOptions, axes=("steps=2,3", "sampler=ancestral,ddim"), s=(5,), out="grid",
        apply=True,
    ).chosen  # fmt: skip
    upsample.run(as_typed(UpsampleOptions, num=20, compute=CPU), Told())
    name = f"non-truncated-s0005-sampler-{chosen.axes['sampler']}-steps-{chosen.axes['steps']}.h5"
    with open_store("samples.h5") as mine, open_store(f"grid/{name}") as theirs:
        assert mine.digest == theirs.digest
        assert mine.provenance["identity"] == theirs.provenance["identity"]


def test_the_same_sweep_goes_on_after_its_choice_was_applied():
    """Searches take the stage's own defaults, so that an applied choice changes none."""
    asked = {"options": SweepOptions, "axes": ("sampler=ancestral,ddim",), "s": (5,), "out": "grid"}
    swept(**asked, apply=True)
    told = Told()
    swept(**(asked | {"s": (3, 5)}), apply=True, told=told)
    assert "grid: 2 of 4 points are there" in told.lines


def test_weights_that_are_others_by_now_are_not_given_the_choice():
    asked = as_typed(SweepSOptions, **FEW, apply=True)
    save_ema(SR, net_of(sr_config(4, 8), seed=7).state_dict(), step=9)
    with pytest.raises(WouldOverwriteError, match="weights"):
        run(asked, Told())
    assert in_force() is None


CHOSEN = {"augment": "truncated", "s": 5, "reference": "train", "value": 1.0, "uncertainty": 0.1}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"axes": {"weights": "best"}}, "no default of weights"),
        ({"axes": {"clip": False}}, "no default of clip"),
        ({"axes": {"restart_from": 9}}, "no default of restart-from"),
        ({"axes": {"schedule": "a.json"}}, "no default of schedule"),
        ({"standing": "worse by 1 ± 0.1"}, "has the lowest FID, and is worse by 1"),
    ],
)
def test_what_a_stage_cannot_keep_is_refused(changes, told):
    options = as_typed(SweepOptions)
    sweep = Sweep(Path("sweep"), read_header(SR), (), {}, ())
    with pytest.raises(MismatchError, match=told) as error:
        make_applied(options, sweep, Chosen(**CHOSEN | changes), "")
    assert "sweep is complete" in str(error.value)
    good = Chosen(**CHOSEN, axes={"steps": 7, "weights": "ema"})
    found = make_applied(options, sweep, good, "It is.")
    assert (found.augment, found.s, found.steps, found.found) == ("truncated", 5, 7, "It is.")


@pytest.mark.parametrize(
    "sampling", [{"weights": "best"}, {"clip": False}, {"restart_from": 3}, {"schedule": Path("a")}]
)
def test_it_is_refused_before_anything_is_made(sampling):
    with pytest.raises(UsageError, match="stages keep no default"):
        SweepSOptions(apply=True, sampling=Sampling(**sampling))


@pytest.mark.parametrize(
    ("tied", "told"),
    [(None, "not known"), ((), "with certainty"), (("a",), "another point"), (("a", "b"), "2 oth")],
)
def test_how_sure_the_choice_is_is_said(tied, told):
    assert told in say_how_sure(Chosen(**CHOSEN, tied=tied))
