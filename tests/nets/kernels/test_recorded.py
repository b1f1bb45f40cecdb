"""Mirrors cdm_cli/nets/kernels/recorded.py; what needs a GPU is skipped without one."""

import gc
import weakref
from typing import NamedTuple

import pytest
import torch

from cdm_cli.nets.kernels import recorded
from cdm_cli.nets.kernels.recorded import Recorded, Recording, leaves, map_tensors, pause_collection

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs")


@pytest.fixture
def made(monkeypatch):
    """Count recordings, which are the function itself."""
    made = []

    def record(function, inputs):
        made.append(list(map_tensors(lambda x: tuple(x.shape), inputs)))
        return function

    monkeypatch.setattr(recorded, "Recording", record)
    return made


def twice(x, other=None):
    return (2 * x if other is None else 2 * x + other,)


def test_a_shape_is_recorded_when_it_comes_again(made):
    call, x, other = Recorded(twice), torch.ones(3), torch.ones(4)
    for inputs in ((x, None), (other, None), (other, None), (other, None), (x, x), (x, x)):
        assert torch.equal(*call(*inputs), *twice(*inputs))
    assert made == [[(4,), None], [(3,), (3,)]]


@pytest.mark.parametrize("other", [torch.ones(2, 2).T, torch.ones(2, 2, dtype=torch.float64)])
def test_another_order_or_precision_is_another_shape(other, made):
    call = Recorded(twice)
    for x in (torch.ones(2, 2), other, torch.ones(2, 2), other):
        call(x)
    assert not made


class Pair(NamedTuple):
    x: torch.Tensor
    other: torch.Tensor | None


def test_what_stands_in_tuples_is_told_flat_and_given_back_as_it_was(made):
    seen = []

    def function(pair, more):
        seen.append((type(pair), pair.other, len(more)))
        return (2 * pair.x + more[0],)

    call, x = Recorded(function), torch.ones(3)
    for _ in range(2):
        assert torch.equal(call(Pair(x, None), (x, None))[0], 3 * x)
    assert seen == [(Pair, None, 2)] * 2
    assert [list(leaves(inputs)) for inputs in made[0]] == [[3, None], [3, None]]
    halved = map_tensors(lambda tensor: tensor / 2, (Pair(x, None), (x, None)))
    assert isinstance(halved[0], Pair)
    assert [None if x is None else x.sum() for x in leaves(halved)] == [1.5, None, 1.5, None]


@CUDA
def test_what_stands_in_tuples_is_replayed_for_other_tensors():
    call = Recorded(lambda pair, more: (pair.x.cos() + more[0],))
    for x, y in torch.randn(4, 2, 100, device="cuda"):
        assert torch.equal(call(Pair(x, None), (y,))[0], x.cos() + y)


def test_a_recording_is_forgotten(made):
    call = Recorded(twice)
    for _ in range(2):
        call(torch.ones(3)), call(torch.ones(3)), call(torch.ones(3))
        call.forget()
    assert len(made) == 2


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_what_cannot_be_recorded_for_lack_of_memory_is_called(error, monkeypatch):
    """An instance of a graph takes memory that PyTorch does not manage."""
    tries = []

    def record(function, inputs):
        tries.append(inputs)
        raise error("CUDA error: out of memory")

    monkeypatch.setattr(recorded, "Recording", record)
    call, x = Recorded(twice), torch.ones(3)
    assert all(torch.equal(call(x)[0], 2 * x) for _ in range(4))
    assert len(tries) == 1


class Ring:
    """Refers to itself, so that only a collection frees what it holds."""

    def __init__(self, held=None):
        self.ring, self.held = self, held


@pytest.fixture
def eager():
    """Collect garbage at every allocation."""
    before = gc.get_threshold()
    gc.collect()
    gc.set_threshold(1, 1, 1)
    yield
    gc.set_threshold(*before)


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_collected_before_and_not_meanwhile(enabled, eager):
    if not enabled:
        gc.disable()
    try:
        gone = weakref.ref(Ring())
        with pause_collection():
            assert gone() is None
            left = weakref.ref(Ring())
            rings = [Ring() for _ in range(10)]
            assert left() is not None
        assert gc.isenabled() is enabled
    finally:
        gc.enable()
    assert len(rings) == 10


@CUDA
def test_a_recording_that_is_garbage_is_gone_before_another_is_made(eager):
    x = torch.ones(3, device="cuda")
    gc.set_threshold(10**9)
    old = weakref.ref(Ring(Recording(twice, (x,))))

    def function(x):
        assert old() is None
        gc.set_threshold(1, 1, 1)
        new = weakref.ref(Ring())
        assert [Ring() for _ in range(10)]
        assert new() is not None
        return (3 * x,)

    assert torch.equal(Recording(function, (x,))(x)[0], 3 * x)


@CUDA
def test_a_recording_follows_what_its_tensors_hold():
    calls = []

    def function(x, other):
        calls.append(None)
        return x.cos() + other, None

    call = Recorded(function)
    for inputs in torch.randn(5, 2, 100, device="cuda"):
        found, nothing = call(*inputs)
        assert nothing is None
        assert torch.equal(found, inputs[0].cos() + inputs[1])
    assert len(calls) == 2


@CUDA
def test_dropout_of_a_recording_follows_the_seed():
    call = Recorded(lambda x: (torch.dropout(x, 0.5, True),))
    x = torch.ones(1000, device="cuda")
    masks = []
    for seed in (1, 2, 3, 1, 2, 3):
        torch.manual_seed(seed)
        masks.append(call(x)[0].clone())
    assert all(map(torch.equal, masks[:3], masks[3:]))
    assert not torch.equal(masks[1], masks[2])
    torch.manual_seed(3)
    assert torch.equal(torch.dropout(x, 0.5, True), masks[2])


@CUDA
def test_tensors_of_inference_stay_such_and_others_do():
    seen = []

    def function(x):
        seen.append(x.is_inference())
        return (2 * x,)

    call, x = Recorded(function), torch.ones(3, device="cuda")
    with torch.inference_mode():
        y = x.clone()
        call(y), call(y)
    assert torch.equal(call(3 * y)[0], 6 * x)
    assert seen == [True, True, False]
    assert torch.equal(call(y)[0], 2 * x)
