"""Mirrors cdm_cli/jobs/runtime/host_memory.py."""

import pytest

from cdm_cli.jobs.runtime import host_memory
from tests.tiny import Told

GiB = 2**30
BEGINS = "a step may take up to 5.0 GiB of memory, of which"
ENDS = "and the system kills what takes more"


@pytest.mark.parametrize(
    ("free", "processes", "said"),
    [
        (5 * GiB, 1, []),
        (4 * GiB, 1, [f"{BEGINS} 4.0 GiB are free, {ENDS}; --at-a-time 2 takes less"]),
        (5 * GiB, 2, [f"{BEGINS} 2.5 GiB are free, {ENDS}; --at-a-time 1 takes less"]),
        (GiB, 1, [f"{BEGINS} 1.0 GiB are free, {ENDS}"]),
        (-GiB, 1, [f"{BEGINS} 0 B are free, {ENDS}"]),
    ],
)
def test_what_takes_more_than_is_free_is_told_with_what_takes_less(
    free, processes, said, monkeypatch
):
    """A GiB in any case and one for each of 4 images, in each process."""
    monkeypatch.setattr(host_memory, "measure_free_memory", lambda: free)
    told = Told()
    host_memory.warn_of_memory("a step", "--at-a-time ", GiB, GiB, 4, processes, told)
    assert told.lines == said
