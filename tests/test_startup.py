"""Mirrors cdm_cli/startup.py: where the time until a first result went, told with -v."""

import gc
import re
import subprocess
import sys
import threading
import weakref
from contextlib import suppress

import pytest
from typer.testing import CliRunner

from cdm_cli import startup
from cdm_cli.app import app
from cdm_cli.startup import (
    compose_line,
    measure_command,
    measure_first,
    measure_imports,
    measure_part,
    tell_by,
    tell_first_result,
)
from tests.tiny import base_config, write_stage


class Item:
    """What can be referred to weakly."""


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when it is told to; the process began at 0."""
    now = [10.0]
    monkeypatch.setattr(startup, "_spent", {})
    monkeypatch.setattr(startup.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(startup, "_find_process_start", lambda: 0.0)

    def move(seconds):
        now[0] += seconds

    return move


def test_parts_are_told_without_the_parts_inside_them_and_once(clock):
    said = []
    tell_by(said.append)
    with measure_part("weights"):
        clock(2.0)
        with measure_part("kernels"):
            clock(3.0)
    with measure_part("weights"):
        clock(1.0)
    tell_first_result(lambda: clock(4.0))
    tell_first_result()
    assert said == ["ready after 20.0 s: kernels 3.0, weights 3.0, the rest 14.0"]


def test_other_threads_cost_no_time(clock):
    told = []
    tell_by(told.append)

    def work():
        with measure_part("reading"):
            clock(5.0)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    tell_first_result()
    assert told == [compose_line({}, 15.0)]


def test_what_fails_counts_too(clock):
    told = []
    tell_by(told.append)
    with suppress(KeyError), measure_part("weights"):
        clock(1.0)
        raise KeyError
    tell_first_result()
    assert told == ["ready after 11.0 s: weights 1.0, the rest 10.0"]


@pytest.mark.parametrize("words", [["-v"], []])
def test_a_command_tells_it_with_v_before_its_first_images(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_stage(tmp_path / "runs/base", base_config())
    asked = [*words, "sample", "--num", "8", "--device", "cpu"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.stderr
    parts = ("command line", "imports", "weights", "first evaluation", "the rest")
    told = r"^ready after \d+\.\d s: " + ".*".join(rf"{part} \d" for part in parts) + ".*$"
    said = re.findall(told, result.stderr, re.M)
    assert len(said) == len(words)


def test_what_an_earlier_command_of_the_process_left_is_forgotten(clock):
    told = []
    with suppress(KeyError), measure_command():
        tell_by(told.append)
        with measure_part("weights"):
            clock(1.0)
        raise KeyError
    tell_first_result()
    with measure_part("kernels"):
        clock(1.0)
    with measure_command():
        tell_by(told.append)
        tell_first_result()
    assert told == [compose_line({"command line": 12.0}, 12.0)]


def test_the_making_of_a_first_item_is_a_part_and_it_is_not_held(clock):
    told, items, held = [], [], []

    def make():
        for seconds in (3.0, 5.0):
            clock(seconds)
            items.append(weakref.ref(made := Item()))
            yield made
            del made
            held.append(items[0]() is not None)

    tell_by(told.append)
    for item in measure_first("first evaluation", make()):
        del item
        tell_first_result()
    assert told == [compose_line({"first evaluation": 3.0}, 13.0)]
    assert held == [False, False]
    assert list(measure_first("none", iter(()))) == []


def test_nothing_is_searched_for_garbage_during_imports_nor_what_they_brought(monkeypatch):
    frozen = []
    monkeypatch.setattr(startup.gc, "freeze", lambda: frozen.append(gc.isenabled()))
    with suppress(ImportError), measure_imports():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
    assert frozen == [], "torch was there before"
    monkeypatch.delitem(sys.modules, "torch")
    with measure_imports():
        monkeypatch.setitem(sys.modules, "torch", startup)
    assert frozen == [True]


IMPORTS = """
import sys
from cdm_cli.nets.kernels import ahead

begun = []
ahead.begin = lambda device: begun.append("torch" in sys.modules)

from typer.testing import CliRunner
from cdm_cli.app import app

for more in ([], ["--device", "cpu"], ["--gpus", "2"], ["--dry-run"]):
    CliRunner().invoke(app, ["sample", "nobody", *more])
import cdm_cli.jobs.training.train, cdm_cli.jobs.sampling.upsample
heavy = ("triton", "scipy", "sympy", "torch._dynamo", "matplotlib", "torchvision", "rich")
print(begun, [name for name in heavy if name in sys.modules])
"""


def test_a_gpu_is_prepared_while_torch_is_imported_and_nothing_heavy_is_imported_beside():
    """By commands that compute in this process, on a GPU if there is one."""
    told = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True)
    assert told.stdout.strip() == "[False] []", told.stderr
