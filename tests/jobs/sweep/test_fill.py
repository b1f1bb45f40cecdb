"""Mirrors cdm_cli/jobs/sweep/fill.py and judges.py: points are made as one, and shared.

Here too: making.py.
"""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cdm_cli.data.store import open_store
from cdm_cli.errors import StoppedError, WouldOverwriteError
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.sampling.fill import Engine
from cdm_cli.jobs.sweep import fill
from cdm_cli.jobs.sweep.judges import PointJudge
from cdm_cli.jobs.sweep.making import claim
from cdm_cli.jobs.sweep.plan import plan_work
from cdm_cli.jobs.sweep.shared import load_stage_for
from cdm_cli.jobs.sweep.sweep import _agree_on_missing, _list_compared, run
from cdm_cli.metrics.features import ClassifierExtractor
from cdm_cli.options.sweeping import SweepSOptions
from tests.asking import as_typed
from tests.data.stores import forget_block
from tests.jobs.sweep.sweeping import CPU, JUDGE, NUM, files, judged_images, write_workspace
from tests.tiny import Told, in_new_folder, sr_config

SWEEP = Path("sweep")
POINTS = ["none-s0000", "truncated-s0005", "non-truncated-s0005", "non-truncated-s0006"]
SIZE = CPU.batch_size
ASKED = {"s": (0, 5, 6), "judge": JUDGE}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace, and a sweep in it that nothing disturbed."""
    with in_new_folder(tmp_path_factory) as home:
        write_workspace(home, sr_config(4, 8))
        run(as_typed(SweepSOptions, **ASKED), Told())
    return home


@pytest.fixture(autouse=True)
def home(made, tmp_path, monkeypatch):
    there = tmp_path / "home"
    shutil.copytree(made, there, ignore=shutil.ignore_patterns("sweep"))
    monkeypatch.chdir(there)
    return there


def planned():
    with ExitStack() as stack:
        return plan_work(as_typed(SweepSOptions, **ASKED), stack, Told())


def sweep(told=None):
    return run(as_typed(SweepSOptions, **ASKED), told or Told())


def test_batches_are_full_across_points(monkeypatch):
    sizes, batch = [], Engine.make_batch

    def counted(self, samples, meter):
        sizes.append(len(samples.ids))
        return batch(self, samples, meter)

    monkeypatch.setattr(Engine, "make_batch", counted)
    sweep()
    assert sizes == [*[SIZE] * (4 * NUM // SIZE), 4 * NUM % SIZE]


def test_a_point_is_judged_while_the_next_ones_are_sampled(made, monkeypatch):
    sampled, judge, waited = threading.Event(), PointJudge.__call__, []

    def late(self, point):
        waited.append(sampled.wait(60))
        return judge(self, point)

    def watch(done):
        if done >= 4 * NUM * 3:
            sampled.set()

    monkeypatch.setattr(PointJudge, "__call__", late)
    told = Told(watch)
    sweep(told)
    assert waited == [True] * 4
    assert files(SWEEP) == files(made / "sweep")
    said = [line for line in told.lines if " of 4): fid" in line]
    assert [line.partition(" (")[2].partition(")")[0] for line in said] == [
        f"{number} of 4" for number in (1, 2, 3, 4)
    ]


def test_what_a_judge_raises_ends_the_sweep_and_the_same_command_continues(made, monkeypatch):
    judge = PointJudge.__call__

    def fails(self, point):
        if point.s == 6:
            raise StoppedError("the judge left")
        return judge(self, point)

    with monkeypatch.context() as patch:
        patch.setattr(PointJudge, "__call__", fails)
        with pytest.raises(StoppedError, match="the judge left"):
            sweep()
    assert not (SWEEP / "non-truncated-s0006.json").exists()
    seen = judged_images(monkeypatch)
    sweep()
    assert sum(seen) == NUM + 1
    assert files(SWEEP) == files(made / "sweep")


def test_a_sweep_that_goes_on_keeps_the_batch_that_it_was_begun_with(monkeypatch):
    """By default that of one process on a GPU is another than that of several."""
    judge = replace(JUDGE, compute=replace(CPU, batch_size=None))
    asked = as_typed(SweepSOptions, **{**ASKED, "judge": judge})

    def choose(points, session):
        return [replace(point, work=replace(point.work, most_at_once=40)) for point in points]

    def fails(self, point):
        raise StoppedError("the judge left")

    with monkeypatch.context() as patch:
        patch.setattr(fill, "_set_most_at_once", choose)
        patch.setattr(PointJudge, "__call__", fails)
        with pytest.raises(StoppedError, match="the judge left"):
            run(asked, Told())
    (SWEEP / "non-truncated-s0006.h5").unlink(missing_ok=True)
    run(asked, Told())
    for point in POINTS:
        with open_store(SWEEP / f"{point}.h5") as store:
            assert store.provenance["numerics"]["batch_size"] == 40


def begin(name, made):
    """Let another process be at a point: its store is there, locked, and empty."""
    SWEEP.mkdir(exist_ok=True)
    shutil.copy(made / "sweep" / f"{name}.h5", SWEEP / f"{name}.h5")
    with open_store(SWEEP / f"{name}.h5", writable=True) as store:
        for block in range(store.parts[""].num_blocks):
            forget_block(store.parts[""], block)
    shutil.copy(made / "sweep/sweep.json", SWEEP / "sweep.json")
    return open_store(SWEEP / f"{name}.h5", writable=True)


def test_of_other_numerics_a_point_is_left_alone_and_unlocked_unless_it_is_complete(made):
    sweep = planned()
    SWEEP.mkdir()
    loaded = load_stage_for(sweep.points, Session(torch.device("cpu"), CPU))
    other = replace(loaded.ready.numerics, batch_size=SIZE + 1)
    loaded.ready = replace(loaded.ready, numerics=other)
    complete, unfinished = sweep.points[1:3]
    begin(complete.judged.stem, made).close()
    shutil.copy(made / "sweep" / complete.samples.name, complete.samples)
    begin(unfinished.judged.stem, made).close()
    claim(complete, loaded).close()
    with pytest.raises(WouldOverwriteError, match="last bits") as kept:
        claim(unfinished, loaded)
    open_store(unfinished.samples, writable=True).close()
    del kept


def test_all_processes_of_a_job_make_the_points_that_the_first_one_lacks(made):
    """Another job may judge a point while they look."""
    sweep = planned()
    SWEEP.mkdir()
    before = _list_compared(sweep)
    sweep.points[0].judged.touch()
    assert _list_compared(sweep) == before

    class Second(World):
        def gather(self, value):
            return [[*value, sweep.points[0].samples.name], value]

    found = _agree_on_missing(sweep, Session(torch.device("cpu"), CPU, Second()))
    assert [point.samples for point in found] == [point.samples for point in sweep.points]


@pytest.mark.parametrize("ends", ["killed", "done"])
def test_a_point_of_another_process_is_left_to_it(made, monkeypatch, ends):
    """Where that one is killed, its lock is gone, and the point is made here."""
    name, told, slept = "truncated-s0005", Told(), []
    store = begin(name, made)

    def other_goes_on(seconds):
        if seconds < fill.GLANCE:  # a look for the name of who holds a lock
            return
        assert sorted(path.stem for path in SWEEP.glob("*-s*.json")) == sorted({*POINTS} - {name})
        slept.append(seconds)
        if ends == "done":
            shutil.copy(made / "sweep" / f"{name}.h5", SWEEP / f"{name}.h5")
            shutil.copy(made / "sweep" / f"{name}.json", SWEEP / f"{name}.json")
        store.close()

    monkeypatch.setattr(fill.time, "sleep", other_goes_on)
    sweep(told)
    assert len(slept) == 1
    assert "waiting for 1 point that other processes make" in told.lines
    assert files(SWEEP) == files(made / "sweep")


def test_a_process_that_hangs_is_named(made, monkeypatch):
    store = begin("truncated-s0005", made)
    monkeypatch.setattr(fill, "PATIENCE", 0.0)
    with pytest.raises(StoppedError, match=r"stopped waiting: no sample .*s0005\.h5 is being wr"):
        sweep()
    store.close()
    assert len(list(SWEEP.glob("*-s*.json"))) == 3


def test_two_commands_at_once_make_one_sweep(made):
    """Both end with all points; none is made or judged twice, whoever takes it."""
    told = [Told(), Told()]
    with ThreadPoolExecutor(2) as both:
        found = list(both.map(sweep, told))
    assert found[0].table.lines() == found[1].table.lines()
    judged = [line for one in told for line in one.lines if ": fid train" in line]
    assert len(judged) == len(POINTS)
    assert files(SWEEP) == files(made / "sweep")


def test_what_is_said_while_a_thread_judges_is_told(monkeypatch):
    judge, lacking = ClassifierExtractor.__call__, iter([True])

    def call(self, images):
        apart = threading.current_thread() is not threading.main_thread()
        if apart and len(images) > 1 and next(lacking, False):
            raise torch.OutOfMemoryError
        return judge(self, images)

    monkeypatch.setattr(ClassifierExtractor, "__call__", call)
    told = Told()
    sweep(told)
    assert "sweep-s: out of device memory: now 16 images at a time" in told.lines
