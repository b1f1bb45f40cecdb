"""Mirrors cdm_cli/jobs/training/numerics.py: a resume that changes last bits says so."""

import json
from contextlib import contextmanager

import pytest
import torch

from cdm_cli.cascade.saved import list_checkpoints
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.training.numerics import compare_numerics, list_numerics
from tests.tiny import Told
from tests.trained import train, write_data

KEEP_ALL = "training.keep=9"


@pytest.fixture
def home(tmp_path):
    write_data(tmp_path / "data.h5")
    return tmp_path


@contextmanager
def threads(num):
    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def states(home):
    found = list_checkpoints(home / "runs/base")
    return [json.loads((path / "state.json").read_text()) for path in found]


def test_another_number_of_threads_is_told_and_stays_on_record(home):
    with threads(1):
        train(home, KEEP_ALL, steps=2)
    with threads(2):
        told = Told()
        train(home, KEEP_ALL, steps=4, told=told)
    assert (
        "threads was 1, now 2: from step 2 on the bytes are not those of an undisturbed run"
        in told.lines
    )
    with threads(2):
        told = Told()
        train(home, KEEP_ALL, steps=6, told=told)
    assert not [line for line in told.lines if "undisturbed" in line]
    change = {"step": 2, "before": {"threads": 1}, "now": {"threads": 2}}
    assert [state["resumed"] for state in states(home)] == [[], [change], [change]]
    assert [state["numerics"]["threads"] for state in states(home)] == [1, 2, 2]


def test_a_checkpoint_of_before_this_was_kept_continues(home, monkeypatch):
    monkeypatch.setattr("cdm_cli.jobs.training.train.list_numerics", lambda *args, **more: {})
    train(home, KEEP_ALL, steps=2)
    monkeypatch.undo()
    told = Told()
    train(home, KEEP_ALL, steps=4, told=told)
    assert not [line for line in told.lines if "undisturbed" in line]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device", "another GPU"), ("build", "cdm 0"), ("precision", "bf16"), ("compiled", True),
        ("processes", 2), ("threads", 99),
    ],
)  # fmt: skip
def test_all_that_decides_last_bits_is_compared(name, value):
    now = list_numerics(Session(torch.device("cpu")), "fp32", compiled=False, exact=False)
    assert compare_numerics(3, now, now) is None
    changed = compare_numerics(3, {**now, name: value}, now)
    assert str(changed) == f"{name} was {value}, now {now[name]}"


def test_processes_decide_nothing_in_an_exact_training():
    now = list_numerics(Session(torch.device("cpu")), "fp32", compiled=False, exact=True)
    assert "processes" not in now
    assert compare_numerics(3, {"processes": 4, **now}, now) is None
