"""Mirrors cdm_cli/jobs/cas/wait.py: two commands of one directory share their trainings."""

import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack

import pytest

from cdm_cli.errors import StoppedError
from cdm_cli.jobs.cas import report as cas_report
from cdm_cli.jobs.cas import training as cas_training
from cdm_cli.jobs.cas import wait as cas_wait
from cdm_cli.jobs.cas.cas import run
from cdm_cli.jobs.cas.wait import Wait
from cdm_cli.jobs.runtime.lock import hold_lock
from tests.jobs.cas.other import AT
from tests.jobs.judging.scoring import options, write_data, write_samples
from tests.tiny import Told
from tests.tree import ROOT

SHOWN = ("samples/outcome.json", "table.json", "classes.csv")
STORES = ("data.h5", "samples.h5")


@pytest.fixture(scope="module")
def others():
    """Two other processes, started at once: each loads torch first."""
    with ExitStack() as stack:
        command = [sys.executable, "-m", "tests.jobs.cas.other"]
        how = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
        both = [stack.enter_context(subprocess.Popen(command, **how)) for _ in range(2)]
        for process in both:
            stack.callback(process.kill)
        yield both


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What a single process leaves."""
    folder = tmp_path_factory.mktemp("alone")
    write_data(folder / "data.h5")
    write_samples(folder / "samples.h5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cas_report, "draw_plot", lambda *args: b"")
        run(options(folder), Told())
    return folder


@pytest.fixture
def folder(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(cas_report, "draw_plot", lambda *args: b"")
    monkeypatch.setattr(cas_wait, "GLANCE", 0.02)
    for name in STORES:
        (tmp_path / name).write_bytes((alone / name).read_bytes())
    return tmp_path


def begin_to_wait(monkeypatch, then):
    """Do something when this process begins to wait."""
    first, wait = iter([then]), Wait.__call__

    def call(self):
        next(first, lambda: None)()
        wait(self)

    monkeypatch.setattr(Wait, "__call__", call)


def read_shown(folder):
    return [(folder / "cas" / name).read_bytes() for name in SHOWN]


@pytest.mark.parametrize("killed", [False, True])
def test_two_processes_train_on_one_set_each(others, folder, alone, trainings, monkeypatch, killed):
    """What one that is killed began, the other one continues."""
    other, told = others.pop(), Told()
    other.stdin.write(f"{folder}\n")
    other.stdin.flush()
    assert other.stdout.readline() == "there\n"

    def go_on():
        other.stdin.write("\n")
        other.stdin.flush()

    begin_to_wait(monkeypatch, other.kill if killed else go_on)
    run(options(folder), told)
    assert other.wait(60) == (-signal.SIGKILL if killed else 0)
    assert trainings == (["real", "samples"] if killed else ["real"])
    assert (f"{folder}/cas/samples: from step {AT - 1} of 12" in told.lines) == killed
    assert read_shown(folder) == read_shown(alone)
    (said,) = [line for line in told.lines if "waited for" in line]
    assert said.startswith(f"{folder}/cas/samples is being trained by process {other.pid} on ")


def test_an_outcome_that_is_there_once_the_lock_is_free_is_taken(folder, trainings, monkeypatch):
    """Another process ends between the look for the outcome and the lock."""
    run(options(folder), Told())
    trainings.clear()
    looks = Counter()

    def read_outcome(directory, *args):
        looks[directory] += 1
        return None if looks[directory] == 1 else cas_training.read_outcome(directory, *args)

    monkeypatch.setattr("cdm_cli.jobs.cas.cas.read_outcome", read_outcome)
    run(options(folder), Told())
    assert trainings == []
    assert [*looks.values()] == [2, 2]


def test_a_process_that_hangs_is_named(folder, trainings, monkeypatch):
    monkeypatch.setattr(cas_wait, "PATIENCE", 0.0)
    named = rf"nothing was saved .*/samples is being trained by process {os.getpid()} on"
    with hold_lock(folder / "cas/samples"), pytest.raises(StoppedError, match=named):
        run(options(folder), Told())
    assert trainings == ["real"]
    run(options(folder), Told())
    assert trainings == ["real", "samples"]


def test_what_is_found_is_said_once_however_long_the_wait(folder, trainings, monkeypatch):
    run(options(folder), Told())
    outcome, told = folder / "cas/samples/outcome.json", Told()
    outcome.write_text("broken")
    lock = ExitStack()
    lock.enter_context(hold_lock(outcome.parent))
    monkeypatch.setattr(Wait, "__call__", lambda self: looks.pop()() if looks else None)
    looks = [lock.close, lambda: None, lambda: None]
    run(options(folder), told)
    assert trainings == ["samples", "real", "samples"]
    assert len([line for line in told.lines if line.endswith("training anew")]) == 1


def test_a_wait_is_stopped(folder, monkeypatch):
    begin_to_wait(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGTERM))
    named = r"stopped by SIGTERM; .*/samples is being trained by process"
    with hold_lock(folder / "cas/samples"), pytest.raises(StoppedError, match=named):
        run(options(folder), Told())
