"""The power fails at any moment: whatever was not synced may be lost, cut or out of order."""

import sys

import pytest

from cdm_cli.data import disk
from tests.faults import power
from tests.faults.power import every_failure

RERUNS = {"create": 100, "prepare": 100, "prepare, some bad": 40, "sample": 12, "train": 6}
MOST = {"train": 4}  # moments of each kind of call; `tests/faults/longer.py` takes more


@pytest.fixture
def without(monkeypatch):
    """Let a function do nothing, in every module that knows it."""

    def replace(function):
        for module in [found for name, found in sys.modules.items() if name.startswith("cdm_cli")]:
            for name in [name for name, value in vars(module).items() if value is function]:
                monkeypatch.setattr(module, name, lambda *words: None)

    return replace


@pytest.mark.parametrize("job", RERUNS)
def test_nothing_that_was_done_is_lost_and_nothing_half_written_counts(tmp_path, told, job):
    tally = every_failure(job, tmp_path / "home", most=MOST.get(job, 24), reruns=RERUNS[job])
    told(tally)
    assert tally.failed == []


def test_without_syncs_the_simulated_disk_loses_data(tmp_path, without, monkeypatch):
    """The proof that the test above can fail."""
    without(disk.sync)
    monkeypatch.setattr(power, "WAYS", tuple(power.some(seed) for seed in range(30)))
    tally = every_failure("create", tmp_path / "home", most=100, reruns=0)
    assert any("is called done, its bytes are others" in fault for fault in tally.failed)


def test_without_syncs_of_directories_it_loses_checkpoints(tmp_path, without):
    without(disk.sync_directory)
    tally = every_failure("train", tmp_path / "home", most=20, reruns=0)
    assert tally.failed
