"""Mirrors cdm_cli/jobs/runtime/launch.py: what a job of several processes ends with.

Real processes, killed, are in tests/faults/test_signals.py.
"""

import os
import signal

import pytest
import torch

from cdm_cli.errors import BadInputError, CdmError, DiskError, MemoryFloorError, StoppedError
from cdm_cli.jobs.runtime import launch
from cdm_cli.jobs.runtime.session import Silent
from cdm_cli.options.sampling import Compute


def error(kind, what):
    return "error", (kind, what, "", "")


STOPPED = error(StoppedError, "stopped by SIGTERM")
KILLED = ("died", -signal.SIGKILL)
BY_US = ("ended", StoppedError.exit_code)


@pytest.mark.parametrize(
    ("ends", "kind", "says"),
    [
        ({0: ("result", 1), 1: KILLED}, StoppedError, "process 1 of 2 died: killed by SIGKILL"),
        ({1: KILLED, 0: STOPPED}, StoppedError, "process 1 of 2 died: killed by SIGKILL"),
        ({0: STOPPED, 1: KILLED}, StoppedError, "process 1 of 2 died: killed by SIGKILL"),
        ({1: error(DiskError, "full"), 0: BY_US}, DiskError, "full"),
        ({1: error(BadInputError, "bad"), 0: STOPPED}, BadInputError, "bad"),
        ({0: STOPPED, 1: STOPPED}, StoppedError, "stopped by SIGTERM"),
        ({0: ("died", 1), 1: BY_US}, StoppedError, "process 0 of 2 died with exit code 1"),
        ({0: STOPPED}, StoppedError, "stopped by SIGTERM"),
        ({0: ("result", 1)}, StoppedError, "process 1 of 2 did not end"),
    ],
)
def test_the_end_that_explains_most_is_told(ends, kind, says):
    """In the order in which the processes ended."""
    with pytest.raises(CdmError, match=says) as caught:
        launch._conclude(ends, 2)
    assert type(caught.value) is kind


def test_the_result_is_that_of_the_first():
    assert launch._conclude({1: ("result", "b"), 0: ("result", "a")}, 2) == "a"


def test_ctrl_c_in_a_process_is_ctrl_c():
    with pytest.raises(KeyboardInterrupt):
        launch._conclude({0: ("interrupted", None), 1: BY_US}, 2)


def threads(report, world):
    return os.environ["OMP_NUM_THREADS"], torch.get_num_threads()


@pytest.mark.parametrize(("said", "processes", "expected"), [(None, 2, "1"), ("1", 1, "1")])
def test_processes_share_the_cores_unless_the_user_has_said(said, processes, expected, monkeypatch):
    """numpy's BLAS too, which knows the variable alone."""
    monkeypatch.delenv("OMP_NUM_THREADS")
    if said:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    compute = Compute(device="cpu", gpus=processes)
    variable, number = launch.launch_processes(threads, compute, Silent())
    assert variable == expected
    assert number <= int(expected)


def lack_memory(report, world):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the docs")


def test_a_process_without_memory_is_told_in_one_line(capfd):
    with pytest.raises(MemoryFloorError, match="not enough memory: CUDA out of memory"):
        launch.launch_processes(lack_memory, Compute(device="cpu", gpus=1), Silent())
    assert capfd.readouterr().err == ""
