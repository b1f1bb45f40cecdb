"""Mirrors cdm_cli/jobs/sampling/pace.py: a rate is timed, after the first steps."""

import time

import pytest

from cdm_cli.jobs.sampling import pace
from cdm_cli.jobs.sampling.pace import measure_pace


def steps(num, seconds=0.01, first=0.0):
    for number in range(num):
        time.sleep(first if number < 3 else seconds)
        yield number


def test_slow_first_steps_do_not_count(monkeypatch):
    monkeypatch.setattr(pace, "SECONDS", 0.2)
    waited = []
    rate = measure_pace(steps(1000, first=0.1), 2, lambda: waited.append(1))
    assert rate == pytest.approx(100, rel=0.5)
    assert rate < 100
    assert len(waited) < 30, "it ends when it knows"


def test_a_chain_that_ends_early_is_timed_by_what_there_was():
    assert measure_pace(steps(5), 2, lambda: None) == pytest.approx(100, rel=0.5)
    assert measure_pace(steps(3), 2, lambda: None) is None
    assert measure_pace(steps(0), 2, lambda: None) is None
