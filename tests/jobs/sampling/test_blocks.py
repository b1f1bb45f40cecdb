"""Mirrors cdm_cli/jobs/sampling/blocks.py."""

import threading
from functools import partial

import numpy as np
import pytest

from cdm_cli.data.schema import BLOCKS_LIMIT, count_blocks
from cdm_cli.errors import BadInputError, DiskError, StoppedError, UsageError
from cdm_cli.jobs.sampling.blocks import BlockWriter, choose_block_size, select_samples
from cdm_cli.names import MOST_SAMPLES
from cdm_cli.options.sampling import SampleOptions
from tests.asking import as_typed


@pytest.mark.parametrize(
    ("num", "size"), [(1, 64), (1000, 64), (2000, 128), (10_000, 632), (50_000, 896)]
)
def test_block_size_depends_on_the_number_alone(num, size):
    assert choose_block_size(num) == size


@pytest.mark.parametrize("num", [2000, 5000, 10_000, 20_000, 50_000, 123_457, 1_281_167])
@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_processes_have_as_many_blocks_each(num, processes):
    size = choose_block_size(num)
    most = -(-num // (size * processes)) * size  # samples of a process, the last block filled up
    assert size <= 1024
    assert most * processes <= 1.03 * num


@pytest.mark.parametrize(
    ("num", "count"), [(64, 1), (65, 2), (1000, 2), (1000, 7), (1000, 16), (50_000, 3), (50_000, 7)]
)
def test_parts_are_whole_blocks_and_together_everything(num, count):
    size = choose_block_size(num)
    parts = [select_samples(num, f"{i}/{count}") for i in range(1, count + 1)]
    assert [row for rows in parts for row in rows] == list(range(num))
    assert all(rows.start % size == 0 and len(rows) for rows in parts)
    blocks = [-(-len(rows) // size) for rows in parts]
    assert max(blocks) - min(blocks) <= 1


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "1/0", "1/17"])
def test_a_part_that_cannot_be_is_refused(part):
    with pytest.raises(UsageError, match="--part"):
        select_samples(1000, as_typed(SampleOptions, part=part).part)


class SlowPart:
    def __init__(self, fails_at=None):
        self.written, self.going, self.fails_at = [], threading.Event(), fails_at

    def write_block(self, block, arrays):
        self.going.wait(2)
        if block == self.fails_at:
            raise DiskError("full")
        self.written.append((block, arrays["ids"].tolist()))


def hand_over(writer, part, block):
    writer.put(partial(part.write_block, block, {"ids": np.array([block])}))


def test_writing_overlaps_and_ends_in_order():
    part = SlowPart()
    with BlockWriter() as writer:
        hand_over(writer, part, 4)
        assert part.written == []  # put returned while the block was still being written
        part.going.set()
        hand_over(writer, part, 7)
    assert part.written == [(4, [4]), (7, [7])]


def put(part, *blocks, error=None):
    part.going.set()
    with BlockWriter() as writer:
        for block in blocks:
            hand_over(writer, part, block)
        if error:
            raise error


def test_a_failed_write_is_raised_and_a_good_one_survives_another_error():
    with pytest.raises(DiskError):
        put(SlowPart(fails_at=2), 1, 2)
    part = SlowPart()
    with pytest.raises(ZeroDivisionError):
        put(part, 1, error=ZeroDivisionError())
    assert part.written == [(1, [1])]


def test_a_write_that_failed_is_told_at_a_stop_but_hides_no_other_error():
    with pytest.raises(DiskError):
        put(SlowPart(fails_at=1), 1, error=StoppedError("stopped by Ctrl-C"))
    with pytest.raises(BadInputError):
        put(SlowPart(fails_at=1), 1, error=BadInputError("damaged"))


def test_the_largest_store_that_may_be_asked_for_has_a_table_of_blocks():
    assert count_blocks(MOST_SAMPLES, choose_block_size(MOST_SAMPLES)) <= BLOCKS_LIMIT
