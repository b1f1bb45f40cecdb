"""One exception for a device that has no memory left, whichever library says so."""

from collections.abc import Generator
from contextlib import contextmanager

import torch

from cdm_cli.errors import is_out_of_memory


@contextmanager
def memory_errors() -> Generator[None]:
    """Raise torch.OutOfMemoryError also where cuBLAS, cuDNN or a CUDA graph lacks memory.

    They take some beside PyTorch's own, and raise RuntimeError.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or not is_out_of_memory(error):
            raise
        raise torch.OutOfMemoryError(str(error)) from None
