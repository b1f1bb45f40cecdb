"""Every system call of every kind of job is broken in turn: the same command ends the same."""

import pytest

from cdm_cli.data.blocks import Blocks
from tests.faults.children import KILLED, Ended
from tests.faults.harness import MODES, every_fault

CHEAP, MOST = ("create", "prepare", "prepare, some bad"), {"sample": 8}


@pytest.mark.parametrize("job", CHEAP)
def test_killed_torn_full_or_broken_the_same_command_ends_in_the_same_bytes(
    tmp_path, killer, told, job
):
    tally = every_fault(job, tmp_path / "home", killer, 8)
    told(tally)
    assert tally.failed == []
    assert tally.tried.keys() == set(MODES)


@pytest.mark.parametrize("job", ["sample", "upsample", "train", "sweep", "tune", "eval"])
def test_jobs_that_run_networks_too(tmp_path, killer, told, job):
    tally = every_fault(job, tmp_path / "home", killer, MOST.get(job, 1), in_turn=True)
    told(tally)
    assert tally.failed == []
    assert tally.tried.keys() >= {"kill", "torn"}


def test_a_store_that_says_done_too_early_is_caught(tmp_path, monkeypatch):
    """The proof that the tests above can fail; here nothing is killed, the disk fails."""
    put_block = Blocks.put_block

    def hasty(self, b, block):
        self._write("done", b, b"\1")
        put_block(self, b, block)

    monkeypatch.setattr(Blocks, "put_block", hasty)
    tally = every_fault("create", tmp_path / "home", lambda *args, **how: Ended(KILLED, None), 100)
    assert any("full" in fault and "store.h5 differs" in fault for fault in tally.failed)
