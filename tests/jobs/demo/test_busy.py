"""Mirrors cdm_cli/jobs/demo/busy.py: who runs beside a demo is told, with what to type."""

import pytest

from cdm_cli.jobs.demo import busy


@pytest.fixture
def running(tmp_path, monkeypatch):
    """Sets how many threads run, this one among them, on four cores."""
    monkeypatch.delenv(busy.THREADS, raising=False)
    monkeypatch.setattr(busy, "RUNNING", tmp_path / "loadavg")
    monkeypatch.setattr(busy, "SECONDS", 0)
    monkeypatch.setattr(busy.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})

    def put(num):
        (tmp_path / "loadavg").write_text(f"0.20 0.18 0.12 {num}/80 11206\n")

    return put


def test_nothing_is_said_where_nothing_else_runs(running):
    running(1)
    assert busy.advice() == ""


def test_who_runs_beside_it_is_counted_and_their_cores_left_to_them(running):
    running(3)
    assert busy.advice().startswith("2 other programs run on these 4 cores")
    assert "OMP_NUM_THREADS=2 cdm demo" in busy.advice()
    running(9)
    assert "OMP_NUM_THREADS=1 cdm demo" in busy.advice()


def test_whoever_said_how_many_threads_is_told_nothing(running, monkeypatch):
    running(9)
    monkeypatch.setenv(busy.THREADS, "4")
    assert busy.advice() == ""


def test_where_it_cannot_be_known_nothing_is_said(running):
    assert busy.count_others() == 0
