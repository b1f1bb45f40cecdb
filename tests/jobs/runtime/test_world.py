"""Mirrors cdm_cli/jobs/runtime/world.py: what becomes of a process that loses the others."""

import pytest
import torch.distributed as dist

from cdm_cli.errors import StoppedError
from cdm_cli.jobs.runtime.world import World, leave_world


@pytest.fixture
def destroyed(monkeypatch):
    """Pretend to be connected; how often the group was destroyed in good order."""
    seen = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: seen.append(1))
    return seen


def test_a_process_leaves_in_good_order(destroyed):
    leave_world(World(0, 2))
    leave_world(World())
    assert len(destroyed) == 1


def test_who_has_lost_another_one_does_not_wait_for_what_it_owes(destroyed, monkeypatch):
    def broken(*args, **how):
        raise RuntimeError("Connection closed by peer\nand much more")

    monkeypatch.setattr(dist, "all_reduce", broken)
    world = World(0, 2)
    with pytest.raises(StoppedError, match=r"0 of 2 lost touch .* Connection closed by peer —"):
        world.barrier()
    leave_world(world)
    assert destroyed == []
