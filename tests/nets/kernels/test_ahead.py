"""Mirrors cdm_cli/nets/kernels/ahead.py: what takes a moment once, in a thread."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from cdm_cli.nets.kernels import ahead


@pytest.fixture(autouse=True)
def nothing_begun(monkeypatch):
    monkeypatch.setattr(ahead, "_begun", [])


@pytest.fixture
def on_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(ahead, "DRIVERS", (Path("/no/driver"), tmp_path))


def test_a_thread_does_it_once_and_is_waited_for(on_a_gpu, monkeypatch):
    go, done = threading.Event(), []

    def prepare(device):
        assert go.wait(60)
        done.append((device, threading.current_thread()))

    monkeypatch.setattr(ahead, "_prepare", prepare)
    ahead.begin(3)
    ahead.begin(3)
    assert done == []
    go.set()
    ahead.finish()
    ((device, thread),) = done
    assert device == 3
    assert thread is not threading.main_thread()


class Driver:
    """As libcuda.so.1 is called; without a device it returns an error."""

    def __init__(self, devices):
        self.devices, self.calls = devices, []

    def cuInit(self, flags):
        self.calls.append("init")
        return 0 if self.devices else 100

    def cuDeviceGet(self, handle, number):
        self.calls.append("get")
        handle._obj.value = number + 40
        return 0 if number < self.devices else 101

    def cuDevicePrimaryCtxRetain(self, context, handle):
        self.calls.append(handle.value)
        return 0


@pytest.mark.parametrize(
    ("devices", "calls"), [(2, ["init", "get", 41]), (1, ["init", "get"]), (0, ["init"])]
)
def test_the_device_that_computes_gets_its_context(devices, calls, monkeypatch):
    monkeypatch.setenv("CUDA_MODULE_LOADING", "LAZY")
    driver = Driver(devices)
    ahead._set_up(driver, 1)
    assert driver.calls == calls


ON_A_GPU = """
from cdm_cli.nets.kernels import ahead
ahead.begin()
ahead.finish()
import ctypes, torch
flags, active = ctypes.c_uint(), ctypes.c_int()
ctypes.CDLL("libcuda.so.1").cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active))
print(active.value, torch.ones(3, device="cuda").sum().item())
"""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_torch_computes_in_the_context_that_was_made():
    told = subprocess.run([sys.executable, "-c", ON_A_GPU], capture_output=True, text=True)
    assert told.stdout.strip() == "1 3.0", told.stderr


def test_without_a_gpu_there_is_no_thread(monkeypatch, tmp_path):
    monkeypatch.setattr(ahead, "DRIVERS", (tmp_path / "none",))
    before = threading.active_count()
    ahead.begin()
    assert threading.active_count() == before


def test_triton_has_its_key_afterwards(on_a_gpu):
    cache = pytest.importorskip("triton.runtime.cache")
    cache.triton_key.cache_clear()
    ahead.begin()
    ahead.finish()
    assert cache.triton_key.cache_info().currsize == 1


def test_where_there_is_no_triton_nothing_happens(on_a_gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton.runtime.cache", None)
    ahead.begin()
    ahead.finish()


def test_a_triton_that_is_broken_writes_no_traceback_into_what_is_said(on_a_gpu, monkeypatch):
    class Broken:
        @property
        def triton_key(self):
            raise RuntimeError("no driver")

    raised = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    monkeypatch.setitem(sys.modules, "triton.runtime.cache", Broken())
    ahead.begin()
    ahead.finish()
    assert raised == []
