"""Shared fixtures. One thread: small tensors on busy cores are many times slower with more.

The processes that tests start have one as well: the number of threads decides the last bits.
"""

import gc
import os
import signal
import sys
from types import SimpleNamespace

import pytest
import torch

from cdm_cli.jobs.training import loop

gc.disable()  # until all tests are imported
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# Shells start what runs in the background deaf to Ctrl-C, nohup to a lost terminal, and children
# inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Name a failed test at once, so that a run that is cut short has told what failed."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.when} failed: {report.nodeid}", file=sys.__stderr__, flush=True)


@pytest.fixture(scope="session", autouse=True)
def stays():
    """Search for garbage neither in torch nor in the tests, as a command does not either.

    That takes a fifth of a second each time, and every training would do it.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    nothing = dict.fromkeys(("collect", "freeze", "unfreeze"), lambda: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "gc", SimpleNamespace(**nothing))
        yield


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def randn_like(generator):
    def draw(x):
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    return draw
