"""Mirrors cdm_cli/nets/kernels/ahead.py: what takes a moment once, in a thread."""

import sys
import threading
from pathlib import Path

import pytest

from cdm_cli.nets.kernels import ahead


@pytest.fixture(autouse=True)
def nothing_begun(monkeypatch):
    monkeypatch.setattr(ahead, "_begun", [])


@pytest.fixture
def on_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(ahead, "DRIVERS", (Path("/no/driver"), tmp_path))


def test_a_thread_does_it_once_and_is_waited_for(on_a_gpu, monkeypatch):
    go, done = threading.Event(), []

    def prepare():
        assert go.wait(60)
        done.append(threading.current_thread())

    monkeypatch.setattr(ahead, "_prepare", prepare)
    ahead.begin()
    ahead.begin()
    assert done == []
    go.set()
    ahead.finish()
    assert len(done) == 1
    assert done[0] is not threading.main_thread()


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
