"""Mirrors cdm_cli/api/warned.py: a function says what its command says, as a warning or not."""

import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

import cdm_cli as cdm
from cdm_cli.cascade.snapshot import save_ema
from cdm_cli.cascade.stagefile import read_stage_file, write_stage_file
from cdm_cli.jobs.exchange import export
from cdm_cli.jobs.judging.panel import open_panel
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.sampling import sample, upsample
from cdm_cli.jobs.sampling.headers import read_header
from cdm_cli.jobs.sampling.schedule_file import place_schedule
from cdm_cli.options.files import ExportOptions
from cdm_cli.options.judging import FeatureOptions
from cdm_cli.options.sampling import Compute, SampleOptions, UpsampleOptions
from tests.asking import as_typed
from tests.test_old_ones_continue import HOME
from tests.tiny import Told, arrays_of, write_store

CPU = {"device": "cpu"}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Two stages that have seen no ring; sr keeps a schedule of 2 steps, searched at s = 5."""
    with zipfile.ZipFile(HOME) as file:
        file.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("base", "sr"):
        file = read_stage_file(Path("runs") / name)
        data = file.data.model_copy(update={"without_images": (1,)})
        write_stage_file(Path("runs") / name, file.model_copy(update={"data": data}))
    kept = place_schedule(read_header(Path("runs/sr")), 2)
    kept.parent.mkdir()
    shutil.copy("schedule.json", kept)


def hear(function, *args, **named):
    """Return what a function warns of; each warning is of the line that called it, in this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function(*args, **named)
    assert {Path(one.filename) for one in caught} <= {Path(__file__)}
    return [str(one.message) for one in caught]


def listen(job, options, **asked):
    told = Told()
    job(as_typed(options, **asked), told)
    return told.lines


def test_sample_says_what_the_command_says():
    lines = listen(sample.plan, SampleOptions, stage="base", out="new.h5", compute=CPU)
    stage = cdm.load_stage("base", device="cpu")
    assert hear(cdm.sample, stage, steps=2) == lines
    assert lines == ["sample: left out 1 of 3 classes without an image: 'ring' (id 1)"]


def test_upsample_says_what_the_command_says():
    asked = {"lowres": "lowres.h5", "model": "sr", "s": 3, "sampling": {"steps": 2}}
    lines = listen(upsample.run, UpsampleOptions, **asked, out="new.h5", compute=CPU)
    stage, low = cdm.load_stage("sr", device="cpu"), cdm.read("lowres.h5")
    assert hear(cdm.upsample, stage, low.images, low.labels, s=3, steps=2) == lines
    kept = "runs/sr/schedules/steps-2.json"
    assert lines == [
        f"--steps 2: on the schedule that is kept in {kept}",
        f"{kept} was searched at s = 5, this is at s = 3: another schedule may be better there "
        "(cdm tune-schedule --s)",
        "upsample: runs/sr was trained with 1 of 3 classes without an image: 'ring' (id 1)",
    ]
    told = Told()
    assert hear(cdm.upsample, stage, low.images, low.labels, s=3, steps=2, report=told) == []
    assert told.lines == lines


def test_a_schedule_is_compared_with_the_weights_that_were_loaded():
    stage, low = cdm.load_stage("sr", device="cpu"), cdm.read("lowres.h5")
    state = {name: value + 1e-3 for name, value in stage.stage.net.state_dict().items()}
    Path("other").mkdir()
    save_ema(Path("other"), state, step=2)
    Path("other/ema.safetensors").rename("runs/sr/best.safetensors")
    said = []
    for weights in ("ema", "best"):
        stage = cdm.load_stage("sr", device="cpu", weights=weights)
        said.append(hear(cdm.upsample, stage, low.images, low.labels, s=5, steps=2))
    assert not any("other weights" in line for line in said[0])
    assert any("searched with other weights than best of runs/sr" in line for line in said[1])


def test_read_says_what_the_command_says_that_takes_as_many():
    arrays = arrays_of(60, [4]) | {"labels": np.repeat([0, 1, 2], 20)}
    write_store("sorted.h5", "samples", {"": arrays}, classes=("disk", "ring", "square"))
    lines = listen(export.run, ExportOptions, store="sorted.h5", num=30, out="new")
    assert hear(cdm.read, "sorted.h5", num=30) == lines
    assert len(lines) == 1
    assert hear(cdm.read, "sorted.h5") == []


def test_load_judge_says_what_eval_says():
    asked, told = {"features": "features", "mode": "legacy-pytorch"}, Told()
    compute = as_typed(Compute, **CPU)
    options = as_typed(FeatureOptions, **asked, compute=compute)
    stage = cdm.load_stage("base", device="cpu")
    open_panel(options, 4, Session(stage.stage.device, compute, report=told))
    assert hear(cdm.load_judge, **asked, device="cpu") == told.lines
    assert told.lines == ["--mode legacy-pytorch: of no effect, features judges, not inception"]


class Counted(Told):
    """A report of a caller that is false until it was told something."""

    def __len__(self):
        return len(self.lines)


def test_a_report_that_is_empty_is_the_callers_own():
    stage, told = cdm.load_stage("base", device="cpu"), Counted()
    assert hear(cdm.sample, stage, num=2, steps=1, report=told) == []
    assert any("left out" in line for line in told.lines)
