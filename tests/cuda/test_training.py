"""Training on CUDA that is killed, stopped, hung or cramped ends as if it had not been."""

import os
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from cdm_cli.errors import StoppedError
from cdm_cli.jobs.checking import verify
from cdm_cli.jobs.runtime import launch as launching
from cdm_cli.jobs.runtime.launch import launch_processes
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.training import train
from cdm_cli.jobs.training.gradients import Gradients
from cdm_cli.options.files import VerifyOptions
from cdm_cli.options.sampling import Compute
from cdm_cli.options.training import TrainOptions
from tests.asking import as_typed
from tests.cuda.rig import (
    GPUS,
    HANG,
    Cramped,
    GiB,
    address,
    cramped,
    hasty,
    kill_parent,
    limited,
    micro_batch,
    needs,
    once,
    signal_rank,
    together,
    unlimited,
)
from tests.faults.test_signals import begun, until
from tests.tiny import Told
from tests.trained import left, rows

STEPS, EVERY = 240, 40
PRESET = "tiny-base16"
SET = (  # 256 positions: where flash attention adds up in no fixed order unless told to
    "model.attention_resolutions=[8,16]", f"training.save_every={EVERY}",
    "training.log_every=10", "training.grid_every=0",
)  # fmt: skip
LARGE = 8192
TWO = Compute(gpus=2)
SOON, PATIENCE = 10.0, 90.0  # NCCL takes its time to give up
ONE_OR_TWO = pytest.mark.parametrize(
    "gpus", [pytest.param(1, marks=needs(1)), pytest.param(2, marks=needs(2))]
)


def options(name, **changes):
    values = {
        "name": name, "preset": PRESET, "overrides": SET, "steps": STEPS, "batch_size": 64,
    }  # fmt: skip
    return as_typed(TrainOptions, **(values | changes))


def trained(asked, gpus, told=None):
    """Train in this process, or in two."""
    told = told or Told()
    return train.run(asked, told) if gpus == 1 else together(train.run_in, asked, gpus, told)


def words(name, gpus):
    """Return the same run as a user types it."""
    flags = [word for assignment in SET for word in ("--set", assignment)]
    command = ["train", name, "--preset", PRESET, "--steps", str(STEPS), "--batch-size", "64"]
    return [*command, *flags, "--gpus", str(gpus)]


def good_checkpoint(name):
    """Whether every file of a stage is what was written, and a step was saved."""
    found = verify.run(as_typed(VerifyOptions, path=Path("runs") / name), Told())
    return found.failure() is None and any(Path(f"runs/{name}/checkpoints").iterdir())


def steps_saved(name):
    there = Path(f"runs/{name}/checkpoints").glob("step-*/manifest.json")
    return max((int(path.parent.name[5:]) for path in there), default=0)


def curve(name):
    """Return the loss and the norm of the gradient of every step that was logged."""
    return [(row["loss"], row["grad_norm"]) for row in rows(Path("runs") / name)]


def kill_one_rank(asked):
    killed = []

    def kill():
        killed.append(time.monotonic())
        signal_rank(1, signal.SIGKILL)

    with pytest.raises(StoppedError, match="process 1 of 2 died: killed by SIGKILL"):
        trained(asked, 2, once(EVERY + 10, kill))
    assert time.monotonic() - killed[0] < launching.GRACE + SOON
    assert good_checkpoint(asked.name)


@ONE_OR_TWO
def test_killed_and_stopped_training_ends_in_the_bytes_of_undisturbed_training(gpus):
    whole, disturbed = f"whole{gpus}", options(f"disturbed{gpus}")
    trained(options(whole), gpus)
    if gpus == 2:
        kill_one_rank(disturbed)
    with pytest.raises(StoppedError, match="stopped by SIGTERM after step"):
        trained(disturbed, gpus, once(10, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    saved = steps_saved(disturbed.name)
    assert saved < STEPS
    process = begun(*words(disturbed.name, gpus))
    until(lambda: steps_saved(disturbed.name) > saved, "a checkpoint")
    kill_parent(process)
    assert saved < steps_saved(disturbed.name) < STEPS
    assert good_checkpoint(disturbed.name)
    trained(disturbed, gpus)
    assert left(Path("runs") / disturbed.name) == left(Path("runs") / whole)


@needs(2)
def test_a_rank_that_hangs_ends_the_job_with_a_named_cause(monkeypatch):
    monkeypatch.setattr(launching, "GRACE", 5.0)
    asked, hung = options("hung", steps=10_000), []

    def stop():
        hung.append(time.monotonic())
        signal_rank(1, signal.SIGSTOP)

    with pytest.raises(StoppedError, match=r"process 0 of 2 (lost touch|died)"):
        launch_processes(partial(hasty, asked), TWO, once(EVERY + 10, stop))
    assert time.monotonic() - hung[0] < HANG.total_seconds() + launching.GRACE + PATIENCE
    assert good_checkpoint(asked.name)


@pytest.fixture
def memory():
    """Give back in the end what a test took away."""
    yield
    for device in range(min(GPUS, 1)):
        unlimited(device)


@pytest.mark.usefixtures("memory")
@ONE_OR_TWO
def test_out_of_memory_halves_what_is_taken_at_a_time_on_all_ranks(gpus):
    """With two GPUs only the second one lacks memory. The whole batch still counts.

    Numbers, not bytes: cuDNN computes otherwise where a workspace does not fit.
    """
    every = (*SET, "training.log_every=1")
    small = {"batch_size": LARGE, "steps": 3, "overrides": every}
    names = f"halved{gpus}", f"asked{gpus}"
    runs = Cramped(*(options(name, **small) for name in names), ranks=(gpus - 1,))
    told = Told()
    if gpus == 1:
        cramped(runs, told, World())
    else:
        launch_processes(partial(cramped, replace(runs, places=(address(), address()))), TWO, told)
    parts = micro_batch(Path("runs") / names[0])
    said = [line for line in told.lines if line.startswith("out of device memory")]
    assert said == [
        f"out of device memory: the batch of {LARGE} is now taken {parts} images at a time; "
        "the result is the same"
    ]
    assert parts < LARGE // gpus
    for mine, asked in zip(*map(curve, names), strict=True):
        assert mine == pytest.approx(asked, rel=1e-3)


@needs(1)
@pytest.mark.parametrize("micro_batch", ["64", "16"])
def test_weights_drawn_beside_a_rehearsal_change_no_byte(micro_batch, monkeypatch):
    names = [f"{how}{micro_batch}" for how in ("at-once-", "beside-")]
    more = (*SET, f"training.micro_batch={micro_batch}")
    for name, beside in zip(names, (False, True), strict=True):
        where = "cdm_cli.jobs.training.first_weights.is_worth_a_thread"
        monkeypatch.setattr(where, lambda *_, beside=beside: beside)
        trained(options(name, overrides=more, steps=6), 1)
    one, other = (left(Path("runs") / name) for name in names)
    assert one == other


@pytest.mark.usefixtures("memory")
@needs(1)
def test_what_did_not_fit_is_not_tried_again(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tried, compute = [], Gradients._add_up

    def add_up(self, *inputs):
        tried.append(self.micro_batch)
        return compute(self, *inputs)

    monkeypatch.setattr(Gradients, "_add_up", add_up)
    limited(2 * GiB)
    tries: list[list[int]] = []
    for name in ("found", "known"):
        told = Told()
        trained(options(name, batch_size=LARGE, steps=2), 1, told)
        assert any(line.startswith("out of device memory") for line in told.lines)
        tries.append(tried.copy())
        tried.clear()
    first, second = tries
    assert first[0] == LARGE > first[-1] == micro_batch(Path("runs/found"))
    assert second[0] == first[-1], "nothing larger is tried again; smaller may be: less is free"
    assert micro_batch(Path("runs/known")) == second[-1]
