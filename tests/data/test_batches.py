"""Mirrors cdm_cli/data/batches.py."""

import os
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cdm_cli.data.batches import TrainBatches, hash_numbers, permute
from cdm_cli.data.store import open_store
from cdm_cli.errors import BadInputError, MismatchError
from tests.data.stores import filled, flip, prepared_spec


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    path = filled(tmp_path_factory.mktemp("batches") / "a.h5", prepared_spec())
    with open_store(path) as store:
        yield store.parts["train"]


def batches(part, batch_size=6, seed=0, rank=0, world=1, low=4, **more):
    return TrainBatches(part, 8, low, batch_size, seed, rank, world, **more)


def test_splitmix64_against_its_published_sequence():
    """The first outputs of Vigna's splitmix64.c from seed 1234567."""
    gamma = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + i * gamma) % 2**64 for i in range(3)], np.uint64)
    assert hash_numbers(states).tolist() == [
        6457827717110365317, 3203168211198807973, 9817491932198370423,
    ]  # fmt: skip


@given(st.integers(1, 400), st.integers(0, 2**63 - 1), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_an_epoch_is_a_permutation(num, seed, epoch):
    assert sorted(permute(num, seed, epoch).tolist()) == list(range(num))


def test_orders_are_fixed_for_ever_and_differ():
    """A literal, so that a run begun with one version goes on with another."""
    assert permute(8, 0, 0).tolist() == [2, 6, 5, 3, 0, 4, 7, 1]
    orders = {tuple(permute(50, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_every_place_is_as_likely_for_every_sample():
    """chi^2 of where each of 8 samples stands in 4000 epochs; 49 degrees of freedom, p = 1e-6."""
    orders = np.stack([permute(8, 7, epoch) for epoch in range(4000)])
    counts = np.stack([(orders == sample).sum(0) for sample in range(8)])
    assert ((counts - 500) ** 2 / 500).sum() < 110


@pytest.mark.parametrize("batch_size", [1, 3, 6, 20, 30, 64])
def test_epochs_cover_everything_once_whatever_the_batch(part, batch_size):
    found = np.concatenate([batches(part, batch_size).choose_rows(step) for step in range(1, 61)])
    for epoch in range(len(found) // part.num):
        rows = found[epoch * part.num : (epoch + 1) * part.num]
        np.testing.assert_array_equal(rows, permute(part.num, 0, epoch))


@pytest.mark.parametrize("world", [2, 3, 6])
def test_processes_share_the_batch_of_one(part, world):
    for step in (1, 4, 9):
        shares = [batches(part, rank=rank, world=world).choose_rows(step) for rank in range(world)]
        np.testing.assert_array_equal(np.concatenate(shares), batches(part).choose_rows(step))


def test_a_step_depends_on_nothing_before_it(part):
    straight = batches(part)
    rows = [straight.choose_rows(step).tolist() for step in range(1, 30)]
    for step in (29, 3, 17):
        assert batches(part).choose_rows(step).tolist() == rows[step - 1]
    assert batches(part, seed=1).choose_rows(1).tolist() != rows[0]


def test_only_chosen_rows_take_part(part):
    chosen = np.array([3, 5, 7, 11, 13])
    found = np.concatenate(
        [batches(part, 5, chosen=chosen).choose_rows(step) for step in range(1, 4)]
    ).reshape(3, 5)
    assert [sorted(rows) for rows in found.tolist()] == [chosen.tolist()] * 3


def test_what_a_batch_holds(part):
    batch, rows = batches(part).read_batch(3), batches(part).choose_rows(3)
    assert batch.x_0.shape == (6, 3, 8, 8)
    assert batch.z_0.shape == (6, 3, 4, 4)
    assert batch.x_0.dtype == batch.z_0.dtype == torch.uint8
    np.testing.assert_array_equal(batch.x_0.permute(0, 2, 3, 1).numpy(), part.images(8)[rows])
    np.testing.assert_array_equal(batch.z_0.permute(0, 2, 3, 1).numpy(), part.images(4)[rows])
    assert batch.y.tolist() == part.labels[rows].tolist()
    assert batches(part, low=None).read_batch(3).z_0 is None


def test_all_of_a_batch_is_pinned_for_a_gpu(part, monkeypatch):
    """A copy from other memory may wait for all that the GPU was given before."""
    pinned, empty = set(), torch.empty

    def noted(tensor):
        pinned.add(tensor.data_ptr())
        return tensor

    def empty_on_any_machine(*shape, pin_memory=False, **more):
        return noted(empty(*shape, **more)) if pin_memory else empty(*shape, **more)

    monkeypatch.setattr(torch, "empty", empty_on_any_machine)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: noted(tensor.clone()))
    assert {tensor.data_ptr() for tensor in batches(part).read_batch(1, pin=True)} == pinned
    assert len(pinned) == 3


@pytest.mark.parametrize("start", [1, 4])
def test_iterating_resumes_at_any_step(part, start):
    found = batches(part).iterate(start)
    for step in range(start, start + 5):
        expected = batches(part).read_batch(step)
        for ours, theirs in zip(next(found), expected, strict=True):
            assert torch.equal(ours, theirs)
            assert ours.is_contiguous()
    assert not expected.x_0.is_contiguous()  # as the store has them
    found.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "batches"]


def test_an_error_of_the_reading_thread_is_the_caller_s(part, monkeypatch):
    def failing(self, step, *, pin=False):
        if step == 3:
            raise OSError("gone")
        return real(self, step, pin=pin)

    real = TrainBatches.read_batch
    monkeypatch.setattr(TrainBatches, "read_batch", failing)
    found = batches(part).iterate(1)
    next(found), next(found)
    with pytest.raises(OSError, match="gone"):
        next(found)
    assert not [thread for thread in threading.enumerate() if thread.name == "batches"]


def test_damaged_blocks_are_found_before_their_first_use(tmp_path):
    """In the reading thread; other blocks are read."""
    path = filled(tmp_path / "a.h5", prepared_spec())
    with open_store(path) as store:
        part = store.parts["train"]
        flip(path, part._opened.layout.offsets["train/images/8"] + 9 * 8 * 8 * 3)
        good = batches(part, chosen=np.arange(8)).iterate(1)
        for _ in range(5):
            next(good)
        good.close()
        with pytest.raises(BadInputError, match=r"samples 8\.\.15 of train do not have the digest"):
            next(batches(part).iterate(1))


def test_labels_that_change_while_they_are_read_are_no_index(tmp_path):
    path = filled(tmp_path / "a.h5", prepared_spec())
    with open_store(path) as store:
        part = store.parts["train"]
        batches(part, 20).read_batch(1)
        with path.open("r+b") as file:
            file.seek(part._opened.layout.offsets["train/labels"])
            file.write(np.full(20, 4, "<i8").tobytes())
        with pytest.raises(BadInputError, match=r"labels outside 0\.\.3, the first is 4"):
            batches(part, 20).read_batch(2)


def test_data_cut_short_under_the_reader_end_it_with_an_error(tmp_path, monkeypatch):
    """Between two batches; what is cut while it is copied ends the process (SIGBUS)."""
    path, read = filled(tmp_path / "a.h5", prepared_spec()), TrainBatches.read_batch

    def batch(self, step, **how):
        if step == 3:
            os.truncate(path, 4096)
        return read(self, step, **how)

    monkeypatch.setattr(TrainBatches, "read_batch", batch)
    with open_store(path) as store:
        found = batches(store.parts["train"], 20).iterate(1)
        next(found), next(found)
        with pytest.raises(BadInputError, match=r"a\.h5 became shorter"):
            next(found)


def test_what_does_not_fit(part):
    with pytest.raises(MismatchError, match=r"resolutions \[4, 8\], not 16"):
        TrainBatches(part, 16, None, 4, 0)
    with pytest.raises(MismatchError, match="not 2"):
        TrainBatches(part, 8, 2, 4, 0)
    with pytest.raises(ValueError, match="no multiple"):
        batches(part, 7, world=2)
