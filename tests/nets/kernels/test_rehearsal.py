"""Mirrors cdm_cli/nets/kernels/rehearsal.py: kernels compiled side by side, a call made again.

With kernels that only wait, but for the last test, on a GPU.
"""

import os
import subprocess
import sys
import threading

import pytest
import torch

from cdm_cli.nets.kernels import rehearsal
from cdm_cli.nets.kernels.rehearsal import Rehearsal, rehearse, when_ready

PATIENCE = 60


class Kernel:
    """Is there once `there` is set; counts what was compiled and launched."""

    def __init__(self, wait=lambda: None):
        self.wait, self.compiled, self.launched, self.there = wait, [], [], False

    def warmup(self, *args, grid, **constants):
        self.compiled.append((*args, *constants.values()))
        if not self.there:
            self.wait()
        self.there = True

    def __getitem__(self, grid):
        return lambda *args, **constants: self.launched.append((*args, *constants.values()))


@pytest.fixture
def on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(rehearsal.ahead, "finish", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state: None)


@pytest.fixture
def threads(monkeypatch):
    monkeypatch.setattr(rehearsal.os, "sched_getaffinity", lambda pid: range(3))


def test_kernels_are_compiled_at_the_same_time_and_the_call_is_made_again(on_a_gpu, threads):
    together = threading.Barrier(3)  # passed by three threads at once, or never
    kernels = [Kernel(lambda: together.wait(PATIENCE)) for _ in range(3)]
    drawn = []

    def function(x):
        drawn.append(torch.rand(()).item())
        for kernel in kernels:
            when_ready(kernel)[(1,)](x, B=2)
        return x

    x = torch.zeros(3)
    assert rehearse(function, x) is x
    assert [kernel.launched for kernel in kernels] == [[(x, 2)]] * 3, "by the second call alone"
    assert drawn[0] == drawn[1]
    torch.manual_seed(0)


def test_kernels_that_are_there_are_launched_at_once_and_the_call_is_not_repeated(on_a_gpu):
    kernel, calls = Kernel(), []

    def function(x):
        calls.append(x)
        when_ready(kernel)[(1,)](x)

    rehearse(function, torch.zeros(3))
    assert len(calls) == len(kernel.launched) == 1


def test_what_triton_needs_first_is_waited_for_and_no_reason_to_call_again(on_a_gpu, monkeypatch):
    kernel, calls, moments = Kernel(), [], []
    monkeypatch.setattr(rehearsal.ahead, "finish", lambda: moments.append(len(calls)))

    def function():
        calls.append(1)
        when_ready(kernel)[(1,)]()

    rehearse(function)
    assert (moments, len(calls)) == ([0], 1)


def test_each_kernel_is_compiled_once_for_what_decides_it(threads):
    kernel, x = Kernel(), torch.zeros(8)
    with Rehearsal():
        for argument in (x, x[4:], torch.ones(8), x[1:], x.double()):
            when_ready(kernel)[(1,)](argument, 16, B=1)
        for number in (32, 1, 17, 23):
            when_ready(kernel)[(1,)](x, number, B=1)
        when_ready(kernel)[(1,)](x, 16, B=2)
    met = [(seen.dtype, seen.data_ptr(), n, B) for seen, n, B in kernel.compiled]
    assert met == [
        (torch.float32, 0, 16, 1), (torch.float32, 4, 16, 1), (torch.float64, 0, 16, 1),
        (torch.float32, 0, 1, 1), (torch.float32, 0, 17, 1), (torch.float32, 0, 16, 2),
    ]  # fmt: skip
    assert len(kernel.launched) == 10


def test_a_kernel_that_cannot_be_compiled_fails_where_it_is_launched(on_a_gpu):
    class Broken(Kernel):
        def __getitem__(self, grid):
            raise SyntaxError("as Triton says it")

        def warmup(self, *args, grid, **constants):
            raise RuntimeError("in a thread")

    with pytest.raises(SyntaxError, match="as Triton says it"):
        rehearse(lambda: when_ready(Broken())[(1,)]())
    assert when_ready(kernel := Kernel()) is kernel, "the rehearsal is over"


def test_what_torch_wraps_to_trace_it_is_left_alone():
    wrapped = object()
    with Rehearsal():
        assert when_ready(wrapped) is wrapped


ON_A_GPU = """
import torch
from cdm_cli.nets.kernels import fused_norm
from cdm_cli.nets.kernels.rehearsal import rehearse

x = torch.randn(2, 64, 16, 16, device="cuda", dtype=torch.bfloat16, requires_grad=True)
gain, offset = torch.ones(64, device="cuda"), torch.zeros(64, device="cuda")
calls = []

def gradient():
    calls.append(1)
    x.grad = None
    y = fused_norm.normalise(x, 32, gain, offset, silu=True, dropout=0.0)
    y.float().square().sum().backward()
    return y.detach(), x.grad

first, again = rehearse(gradient), gradient()
print(len(calls), all(map(torch.equal, first, again)))
"""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_kernels_of_triton_are_those_that_are_launched_afterwards(tmp_path):
    """In a process of its own, which finds none of them on the disk."""
    told = subprocess.run(
        [sys.executable, "-c", ON_A_GPU], capture_output=True, text=True,
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert told.stdout.strip() == "3 True", told.stderr
