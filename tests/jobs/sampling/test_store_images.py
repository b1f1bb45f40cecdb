"""Mirrors cdm_cli/jobs/sampling/store_images.py: it is told which part is taken."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cdm_cli.data.store import open_store
from cdm_cli.jobs.curve import curve
from cdm_cli.jobs.elbo import elbo
from cdm_cli.jobs.exchange import export
from cdm_cli.jobs.judging import evaluate
from cdm_cli.jobs.sampling import upsample
from cdm_cli.jobs.sampling.store_images import choose_part, tell_classes, tell_part
from cdm_cli.jobs.sweep import sweep
from cdm_cli.jobs.training import train
from cdm_cli.jobs.tune import tune
from cdm_cli.options.files import ExportOptions
from cdm_cli.options.judging import CurveOptions, ElboOptions, EvalOptions, TuneOptions
from cdm_cli.options.sampling import UpsampleOptions
from cdm_cli.options.sweeping import SweepSOptions
from cdm_cli.options.training import TrainOptions
from tests.asking import as_typed
from tests.test_old_ones_continue import HOME
from tests.tiny import Told, arrays_of, write_store

NUM = 6
WHOLE = {"train": arrays_of(NUM, [4]), "val": arrays_of(NUM, [4])}


@pytest.mark.parametrize(
    ("parts", "split", "says"),
    [("train", None, ["data.h5 has no val: taking train, its only part"]), ("train", "train", []),
     ("train val", None, [])],
)  # fmt: skip
def test_the_only_part_is_taken_and_told(tmp_path, monkeypatch, parts, split, says):
    monkeypatch.chdir(tmp_path)
    write_store("data.h5", "prepared", {name: WHOLE[name] for name in parts.split()})
    told = Told()
    with open_store("data.h5") as store:
        tell_part(store, split, told)
        name, _ = choose_part(store, split)
    assert told.lines == says
    assert name == ("train" if says or split else "val")


@pytest.mark.parametrize(
    ("kind", "labels", "num", "says"),
    [
        (
            "samples",
            [0, 0, 0, 1, 1, 2],
            4,
            ["are taken, are of 2 of its 3 classes"],
        ),
        ("samples", [0, 1, 2, 0, 1, 2], 4, []),
        ("samples", [0, 1, 2, 0, 1, 2], 2, []),
        ("samples", [0, 0, 0, 1, 1, 2], None, []),
        ("prepared", [0, 0, 0, 1, 1, 2], 4, []),
    ],
)
def test_samples_that_are_sorted_by_class_are_told_where_some_are_left_out(
    tmp_path, kind, labels, num, says
):
    arrays = arrays_of(NUM, [4]) | {"labels": np.array(labels)}
    part = "" if kind == "samples" else "train"
    write_store(tmp_path / "low.h5", kind, {part: arrays}, classes=("a", "b", "c"))
    told = Told()
    with open_store(tmp_path / "low.h5") as store:
        tell_classes(store, store.parts[part], num, told)
    assert len(told.lines) == len(says)
    for line, words in zip(told.lines, says, strict=True):
        assert words in line


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Stages base and sr (4 to 8), data.h5 and a judge; the classes of sorted.h5 stand in order."""
    with zipfile.ZipFile(HOME) as file:
        file.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("sweep", "curve"):
        shutil.rmtree(name)
    for name in ("samples.h5", "schedule.json", "schedule.trials.jsonl"):
        Path(name).unlink()
    classes = ("disk", "ring", "square")
    arrays = arrays_of(60, [4, 8]) | {"labels": np.repeat([0, 1, 2], 20)}
    write_store("sorted.h5", "samples", {"": arrays}, classes=classes)


def judge(ref="data.h5"):
    return {"features": "features", "ref": ref, "compute": {"device": "cpu", "batch_size": 8}}


SR = {"model": "sr", "s": 5, "num": 30}
LIMITED = {
    "upsample": (upsample.plan, UpsampleOptions, {"lowres": "sorted.h5", **SR}),
    "sweep-s": (sweep.plan, SweepSOptions, {"lowres": "sorted.h5", **SR, "s": (5,)}),
    "tune-schedule": (tune.plan, TuneOptions, {"lowres": "sorted.h5", **SR, "steps": (2,)}),
    "eval checkpoints": (
        curve.plan, CurveOptions,
        {"stage": "sr", "weights": ("ema",), "lowres": "sorted.h5", "s": 5, "num": 30},
    ),
    "train": (
        train.plan, TrainOptions,
        {"name": "sr", "select": "fid", "select_lowres": "sorted.h5", "select_num": 30,
         "features": "features"},
    ),
    "export": (export.run, ExportOptions, {"store": "sorted.h5", "num": 30, "out": "new"}),
}  # fmt: skip
JUDGED = ("sweep-s", "tune-schedule", "eval checkpoints")


@pytest.mark.parametrize("command", LIMITED)
def test_whoever_takes_the_first_samples_of_a_store_says_which_classes_they_lack(home, command):
    job, options, given = LIMITED[command]
    if command in JUDGED:
        given = given | {"judge": judge()}
    told = Told()
    job(as_typed(options, **given), told)
    (line,) = [
        line for line in told.lines if "first 30 images, which are taken, are of 2 of" in line
    ]
    assert line.startswith("sorted.h5: ")


@pytest.mark.parametrize("command", [*JUDGED, "eval", "eval elbo"])
def test_that_samples_stand_for_real_images_is_said(home, command):
    others = {
        "eval": (evaluate.plan, EvalOptions, {"metrics": ("fid",), "stores": ("lowres.h5",)}),
        "eval elbo": (elbo.plan, ElboOptions, {"stages": ("base",), "ref": "sorted.h5"}),
    }
    job, options, given = (LIMITED | others)[command]
    if command != "eval elbo":
        given = given | {"judge": judge("sorted.h5")}
    told = Told()
    job(as_typed(options, **given), told)
    assert told.lines.count("sorted.h5 holds samples, no real images") == 1
