"""Mirrors cdm_cli/jobs/runtime/ordered.py: the bits of a sum do not depend on who adds what."""

import pytest
import torch

from cdm_cli.jobs.runtime.ordered import sum_in_order


@pytest.fixture
def parts(generator):
    """Of numbers so different in size that each order rounds otherwise."""
    scale = 10.0 ** torch.arange(-4, 4)[:, None]
    return list(scale * torch.randn(8, 1000, generator=generator))


def shared(parts, processes):
    """Add up shares as each process does, then the sums of the shares."""
    each = len(parts) // processes
    sums = [
        sum_in_order(((x,) for x in parts[k * each : (k + 1) * each]), each)
        for k in range(processes)
    ]
    (total,) = sum_in_order(iter(sums), processes)
    return total


def test_any_number_of_processes_has_the_bits_of_one(parts):
    before = [part.clone() for part in parts]
    p = parts
    tree = ((p[0] + p[1]) + (p[2] + p[3])) + ((p[4] + p[5]) + (p[6] + p[7]))
    for processes in (1, 2, 4, 8):
        assert torch.equal(shared(parts, processes), tree)
    assert not torch.equal(sum(parts), tree), "another order has other bits"
    assert all(map(torch.equal, parts, before)), "parts stay as they are"


def test_parts_may_come_one_after_another_in_the_same_memory(parts):
    (wanted,), memory = sum_in_order(((x,) for x in parts), 8), torch.empty(1000)
    one_by_one = ((memory.copy_(x), None) for x in parts)
    total, nothing = sum_in_order(one_by_one, 8)
    assert torch.equal(total, wanted)
    assert nothing is None
    (alone,) = sum_in_order(iter([(memory,)]), 1)
    assert alone is memory
