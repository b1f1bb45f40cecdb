"""Mirrors cdm_cli/options/sweeping.py: an axis is a flag of sampling, checked as that flag."""

import dataclasses
from pathlib import Path

import pytest

from cdm_cli.errors import UsageError
from cdm_cli.options.sampling import Sampling
from cdm_cli.options.sweeping import AXES, SHARED, SweepOptions, SweepSOptions, parse_axis
from tests.asking import as_typed


def grid(*axes, **changes):
    return as_typed(SweepOptions, axes=axes, **changes)


def test_every_setting_of_sampling_is_an_axis_or_says_why_not():
    names = {field.name for field in dataclasses.fields(Sampling)} | {"s", "augment"}
    assert set(AXES) | set(SHARED) == names
    assert not set(AXES) & set(SHARED)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("s=0,251", (0, 251)),
        ("steps=8,25,8", (8, 25)),
        ("sampler=ancestral, ddim", ("ancestral", "ddim")),
        ("clip=yes,no", (True, False)),
        ("restart-from=none,500", (None, 500)),
        ("restart_from=500", (500,)),
        ("schedule=none,a/b.json", (None, Path("a/b.json"))),
        ("weights=ema,step-00001000", ("ema", "step-00001000")),
    ],
)
def test_values_are_those_of_the_flag(text, values):
    name = text.partition("=")[0].replace("-", "_")
    assert parse_axis(text) == (name, values)


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        (("step=1",), r"--axis step: expected one of s, .*weights; did you mean steps\?"),
        (("",), "--axis : expected one of s"),
        (("steps=1,x",), "--axis steps=x: expected a whole number"),
        (("steps=-1",), "--axis steps=-1: expected 0 or more"),
        (("s=-5",), "--axis s=-5: expected 0 or more"),
        (("sampler=dimm",), r"expected one of ancestral, .*did you mean ddim\?"),
        (("weights=none,",), "^$"),
        (("steps=",), "--axis steps=: expected NAME=V,V"),
        (("seed=1,2",), "--axis seed: points share their noise"),
        (("augment=truncated",), "--axis augment: --augment says"),
        (("steps=1", "steps=2"), "--axis steps is given twice"),
    ],
)
def test_bad_axes_are_one_line(axes, says):
    if says == "^$":
        assert grid(*axes).grid == [{"weights": "none"}]  # a name like any other, until it is read
        return
    with pytest.raises(UsageError, match=says):
        grid(*axes)


def test_a_setting_has_one_place():
    with pytest.raises(UsageError, match="--axis steps is given twice, or beside --steps"):
        grid("steps=1,2", sampling=Sampling(steps=3))
    with pytest.raises(UsageError, match="--axis s is given twice, or beside --s"):
        grid("s=1,2", s=(3,))
    assert grid("steps=1,2", sampling=Sampling(sampler="ddim")).varied == ("steps",)


def test_a_grid_is_all_combinations_in_one_order():
    one, other = (grid(*axes) for axes in (("steps=1,2", "sampler=ddim", "s=7,3"),
                                           ("sampler=ddim", "s=3,7", "steps=1,2")))  # fmt: skip
    assert one.grid == other.grid == [{"sampler": "ddim", "steps": n} for n in (1, 2)]
    assert one.times == other.times == (3, 7)
    assert one.varied == ("sampler", "steps")
    assert grid().grid == [{}]


def test_real_images_are_val_unless_others_are_named():
    assert as_typed(SweepSOptions).real == ()
    assert as_typed(SweepSOptions, ground_truth=True).real == ("val",)
    assert as_typed(SweepSOptions, ground_truth=True, ground_truth_of=("train",)).real == ("train",)
    assert as_typed(SweepSOptions, ground_truth_of=("train", "val")).real == ("train", "val")
