"""Mirrors cdm_cli/nets/memory.py."""

import pytest
import torch

from cdm_cli.nets.memory import memory_errors

OF_MEMORY = [
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    torch.AcceleratorError("CUDA error: out of memory"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
]
OTHERS = [RuntimeError("CUDA error: an illegal memory access"), ValueError("out of memory")]


@pytest.mark.parametrize("error", OF_MEMORY, ids=str)
def test_every_library_lacks_memory_in_the_same_words(error):
    with pytest.raises(torch.OutOfMemoryError) as raised, memory_errors():
        raise error
    assert str(raised.value) == str(error)


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_pass_as_they_are(error):
    with pytest.raises(type(error)) as raised, memory_errors():
        raise error
    assert raised.value is error
