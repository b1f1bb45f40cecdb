"""Mirrors cdm_cli/jobs/sweep/shared.py: the judge and the stage are loaded at a time, or not."""

import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from cdm_cli.errors import MissingError
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.sweep import shared
from cdm_cli.options.sweeping import SweepSOptions
from tests.asking import as_typed


@dataclass
class Model:
    resolution = 8


@dataclass
class Planned:
    """As much of a point as is asked of it before anything is loaded."""

    out: Path

    @property
    def work(self):
        return self

    header = config = property(lambda self: self)
    model = Model()


def opened(monkeypatch, points, panel, loaded):
    monkeypatch.setattr(shared, "open_panel", lambda *_, **__: panel())
    monkeypatch.setattr(shared, "load_stage_for", lambda *_: loaded())
    return shared.open_panel_and_stage(as_typed(SweepSOptions, s=(0,)), points, Session("cpu"))


def raising(what):
    def fail():
        raise MissingError(what)

    return fail


@pytest.fixture
def points(tmp_path):
    return [Planned(tmp_path / "sweep")]


def test_the_judge_and_the_stage_are_loaded_at_a_time(monkeypatch, points):
    both = threading.Barrier(2, timeout=20)

    def meet(name):
        both.wait()
        return name

    found = opened(monkeypatch, points, lambda: meet("panel"), lambda: meet("loaded"))
    assert found == ("panel", "loaded")
    assert points[0].out.is_dir()


@pytest.mark.parametrize(
    ("panel", "loaded", "what"),
    [
        (raising("no judge"), lambda: None, "no judge"),
        (lambda: None, raising("no stage"), "no stage"),
        (raising("no judge"), raising("no stage"), "no judge"),
    ],
)
def test_what_one_of_them_raises_is_raised_and_no_directory_is_left(
    monkeypatch, points, panel, loaded, what
):
    with pytest.raises(MissingError, match=what):
        opened(monkeypatch, points, panel, loaded)
    assert not points[0].out.exists()


def test_a_directory_that_was_there_stays(monkeypatch, points):
    points[0].out.mkdir()
    with pytest.raises(MissingError):
        opened(monkeypatch, points, raising("no judge"), lambda: None)
    assert points[0].out.is_dir()
