"""Mirrors cdm_cli/jobs/runtime/launch.py: what the processes of a job are started with.

Real processes, killed, are in tests/faults/test_signals.py.
"""

import os

import pytest
import torch

from cdm_cli.errors import MemoryFloorError
from cdm_cli.jobs.runtime import launch
from cdm_cli.jobs.runtime.session import Silent
from cdm_cli.options.sampling import Compute


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
