"""Mirrors cdm_cli/jobs/runtime/ranks.py."""

import pytest

from cdm_cli.errors import UsageError
from cdm_cli.jobs.runtime.ranks import is_started_elsewhere, read_ranks

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
STEP = {"SLURM_PROCID": "3", "SLURM_LOCALID": "2", "SLURM_STEP_NUM_TASKS": "4"}
NAMES = {*TORCHRUN, *STEP}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1, 0)),
        (TORCHRUN, (5, 8, 1)),
        (STEP, (3, 4, 2)),
        ({**STEP, **TORCHRUN}, (5, 8, 1)),  # torchrun within a job step
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1"}, (0, 1, 0)),
        ({"SLURM_PROCID": "0"}, (0, 1, 0)),  # a batch script
        ({"RANK": "1"}, (0, 1, 0)),
    ],
)
def test_who_we_are_is_in_the_environment(environment, expected, monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert read_ranks() == expected


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"RANK": "8"}, "RANK=8: WORLD_SIZE=8 has ranks 0..7"),
        ({"RANK": "one"}, "RANK=one: expected a whole number"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE=: expected a whole number"),
    ],
)
def test_a_rank_that_the_job_does_not_have_is_told(changes, told, monkeypatch):
    for name, value in (TORCHRUN | changes).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        read_ranks()
    assert caught.value.what == told


def test_one_process_of_torchrun_was_started_elsewhere_too(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    assert not is_started_elsewhere()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert is_started_elsewhere()
