"""Every system call of every kind of job is broken in turn: the same command ends the same.

Here some calls of each; `python -m tests.faults.longer --every-call` breaks them all.
"""

import pytest
from typer.testing import CliRunner

from cdm_cli.app import COMMANDS, app
from cdm_cli.commands.table import TABLE
from cdm_cli.data import disk
from cdm_cli.data.blocks import Blocks
from tests.faults import inputs
from tests.faults.children import KILLED, Ended
from tests.faults.harness import MODES, every_fault
from tests.faults.jobs import JOBS, WRITES_NOTHING, state
from tests.faults.two_jobs import once

CHEAP, MOST = ("create", "prepare"), {"sample": 4}
NETWORKS = ("sample", "upsample", "train", "eval")
LONGER = ("grid, then race", "race, paused")  # broken in the longer mode alone
OTHERS = [name for name in JOBS if name not in (*CHEAP, *NETWORKS, *LONGER)]
PRINTING = {
    "eval elbo": "eval elbo base --ref samples.h5 --steps 2 --device cpu",
    "inspect": "inspect samples.h5",
    "ls": "ls",
    "env": "env --device cpu",
    "help": "help train",
    "verify": "verify samples.h5",
    "completions": "completions bash",
}


@pytest.mark.parametrize("job", CHEAP)
def test_killed_torn_full_or_broken_the_same_command_ends_in_the_same_bytes(
    tmp_path, killer, told, job
):
    tally = every_fault(job, tmp_path / "home", killer, 4)
    told(tally)
    assert tally.failed == []
    assert tally.tried.keys() == set(MODES)


@pytest.mark.parametrize("job", NETWORKS)
def test_jobs_that_run_networks_too(tmp_path, killer, told, job):
    tally = every_fault(job, tmp_path / "home", killer, MOST.get(job, 1), in_turn=True)
    told(tally)
    assert tally.failed == []
    assert tally.tried.keys() >= {"kill", "torn"}


@pytest.mark.parametrize("job", OTHERS)
def test_every_other_command_is_killed_once_and_typed_twice(tmp_path, killer, told, job):
    tally = once(job, tmp_path / "home", killer)
    told(tally)
    assert tally.failed == []


def test_no_command_is_forgotten():
    """Two commands may be one job: `sweep-s` is a `sweep`."""
    job_of = {command.name: command.job for command in TABLE}
    broken = {job_of.get(job.command) for job in JOBS.values()}
    covered = {name for name in COMMANDS if job_of.get(name) in broken - {None}}
    assert covered == COMMANDS.keys() - WRITES_NOTHING.keys()


@pytest.mark.parametrize("command", WRITES_NOTHING)
def test_what_writes_nothing_has_no_call_to_break(tmp_path, monkeypatch, command):
    inputs.stage(tmp_path)
    inputs.store(tmp_path)
    monkeypatch.chdir(tmp_path)
    before, calls = state(tmp_path), []
    with disk.announce_to(calls.append):
        done = CliRunner().invoke(app, PRINTING[command].split())
    assert done.exit_code == 0, done.stderr
    assert calls == []
    assert state(tmp_path) == before


def test_a_store_that_says_done_too_early_is_caught(tmp_path, monkeypatch):
    """The proof that the tests above can fail; here nothing is killed, the disk fails."""
    put_block = Blocks.put_block

    def hasty(self, b, block):
        self._write("done", b, b"\1")
        put_block(self, b, block)

    monkeypatch.setattr(Blocks, "put_block", hasty)
    tally = every_fault("create", tmp_path / "home", lambda *args, **how: Ended(KILLED, None), 100)
    assert any("full" in fault and "store.h5 differs" in fault for fault in tally.failed)
