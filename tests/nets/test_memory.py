"""Mirrors cdm_cli/nets/memory.py."""

import pytest
import torch

from cdm_cli.errors import MemoryFloorError
from cdm_cli.nets.memory import Halving, translate_memory_errors

OF_MEMORY = [
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8589934592 bytes."),
    torch.AcceleratorError("CUDA error: out of memory"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
]
OTHERS = [RuntimeError("CUDA error: an illegal memory access"), ValueError("out of memory")]


@pytest.mark.parametrize("error", OF_MEMORY, ids=str)
def test_every_library_lacks_memory_in_the_same_words(error):
    with pytest.raises(torch.OutOfMemoryError) as raised, translate_memory_errors():
        raise error
    assert str(raised.value) == str(error)


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_pass_as_they_are(error):
    with pytest.raises(type(error)) as raised, translate_memory_errors():
        raise error
    assert raised.value is error


class Limited:
    """A function of a batch, for which only so many rows have room; calls: how many each had."""

    def __init__(self, room):
        self.room, self.calls = room, []

    def __call__(self, x):
        self.calls.append(len(x))
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 2 * x, None


def test_a_batch_is_halved_until_it_fits_and_stays_so():
    limited, told = Limited(3), []
    halving = Halving(limited, torch.device("cpu"), told.append)
    for _ in range(2):
        found, nothing = halving(torch.arange(10))
        assert found.tolist() == list(range(0, 20, 2))
        assert nothing is None
    assert limited.calls == [10, 5, 3, 3, 3, 1, 3, 3, 3, 1]
    assert told == [f"out of device memory: now {n} images at a time" for n in (5, 3)]


def test_one_row_that_does_not_fit_is_told():
    halving = Halving(Limited(0), torch.device("cpu"), lambda line: None)
    with pytest.raises(MemoryFloorError, match="one image at a time does not fit"):
        halving(torch.arange(4))
