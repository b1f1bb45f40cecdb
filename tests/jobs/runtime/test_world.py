"""Mirrors cdm_cli/jobs/runtime/world.py: what becomes of a process that loses the others."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from cdm_cli.errors import StoppedError, UsageError
from cdm_cli.jobs.runtime.session import take_part
from cdm_cli.jobs.runtime.world import World, connect, leave_world
from cdm_cli.options.sampling import Compute
from tests.tiny import Told


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


def test_who_is_in_a_group_already_is_told(destroyed):
    with pytest.raises(StoppedError, match=r"0 of 2: torch\.distributed is in use here already"):
        connect(World(0, 2, address="127.0.0.1:1"), "cpu", print)


def list_ranks(options, session):
    return session.world.gather(session.world.rank)


def take_part_thrice(report, world):
    return [take_part(list_ranks, None, Compute(device="cpu"), report, world) for _ in range(3)]


def test_an_address_that_cannot_be_made_is_told_by_its_variable(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.1")
    monkeypatch.setenv("SLURM_JOB_ID", "array-7")
    with pytest.raises(UsageError, match="SLURM_JOB_ID=array-7: expected a whole number"):
        connect(World(0, 2), "cpu", Told().say)


def test_processes_do_one_job_after_another(pair):
    """As a program does that torchrun starts, which calls several: at one address all the time."""
    assert pair.launch(take_part_thrice, Compute(gpus=2), Told()) == [[0, 1]] * 3


def test_who_has_lost_another_one_does_not_wait_for_what_it_owes(destroyed, monkeypatch):
    def broken(*args, **how):
        raise RuntimeError("Connection closed by peer\nand much more")

    monkeypatch.setattr(dist, "all_reduce", broken)
    world = World(0, 2)
    with pytest.raises(StoppedError, match=r"0 of 2 lost touch .* Connection closed by peer —"):
        world.barrier()
    leave_world(world)
    assert destroyed == []


@pytest.mark.parametrize("rank", range(4))
def test_each_process_adds_up_its_share_of_the_numbers_in_one_order(rank, generator, monkeypatch):
    """Beside three others; real processes are in tests/jobs/training/test_exact.py."""
    scale = 10.0 ** torch.arange(-2, 2)[:, None]
    flats = F.pad(scale * torch.randn(4, 997, generator=generator), (0, 3))
    tree = (flats[0] + flats[1]) + (flats[2] + flats[3])
    assert not torch.equal(tree, flats.sum(0))

    def exchange(theirs, mine):
        assert torch.equal(mine, flats[rank])
        theirs.copy_(torch.cat([flat.chunk(4)[rank] for flat in flats]))

    def gather(everyone, mine):
        assert torch.equal(mine, tree.chunk(4)[rank])
        for place, part in zip(everyone, tree.chunk(4), strict=True):
            place.copy_(part)

    monkeypatch.setattr(dist, "all_to_all_single", exchange)
    monkeypatch.setattr(dist, "all_gather", gather)
    loss, gradient = flats[rank, 0].clone(), flats[rank, 1:997].clone().view(83, 12)
    World(rank, 4).sum_([gradient], loss, in_order=True)
    assert torch.equal(loss, tree[0])
    assert torch.equal(gradient.flatten(), tree[1:997])
