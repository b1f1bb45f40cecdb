"""Judging in full float32: TF32 would round the features of a GPU to ten bits of mantissa."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def use_full_float32() -> Generator[None]:
    """Switch TF32 off while entered, and gradients with it; training may have switched it on."""
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        with torch.no_grad():
            yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before
