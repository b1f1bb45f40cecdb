"""One exception for a device without memory, and batches that are halved until they fit."""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor

from cdm_cli.errors import MemoryFloorError, is_out_of_memory
from cdm_cli.units import format_count

T = TypeVar("T", Tensor, tuple[Tensor, Tensor | None])


@contextmanager
def translate_memory_errors() -> Generator[None]:
    """Raise torch.OutOfMemoryError also where cuBLAS, cuDNN or a CUDA graph lacks memory.

    They take some beside PyTorch's own, and raise RuntimeError.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or not is_out_of_memory(error):
            raise
        raise torch.OutOfMemoryError(str(error)) from None


class Halving(Generic[T]):
    """A function of a batch, called on fewer rows at a time once its device has no memory for all.

    call: takes a tensor [B, ...] and returns one or several [B, ...]. device: where it computes.
    tell: told of each halving.
    """

    def __init__(
        self, call: Callable[[Tensor], T], device: torch.device, tell: Callable[[str], object]
    ) -> None:
        self._call, self._device, self._tell = call, device, tell
        self._most: int | None = None  # rows at a time

    def __call__(self, x: Tensor) -> T:
        """Call it. Raises MemoryFloorError where a single row does not fit."""
        while True:
            pieces = x.split(self._most or max(1, len(x)))
            try:
                with translate_memory_errors():
                    return _join([self._call(piece) for piece in pieces])
            except torch.OutOfMemoryError:
                size = len(pieces[0])
            self._most = halve(size, self._device)  # no traceback holds memory here
            self._tell(say_halved(self._most))


def say_halved(num: int) -> str:
    """Return what is said once a device has memory for so many images at a time."""
    return f"out of device memory: now {format_count(num, 'image')} at a time"


def halve(
    size: int, device: torch.device, *,
    kept: str = "what is there is untouched",
    next: str = "free the device of other programs, or take a larger one",
) -> int:  # fmt: skip
    """Give back the device's unused memory; return half of a number of images that did not fit.

    Raises MemoryFloorError for a single one: kept and next are what it says.
    """
    if size <= 1:
        told = f"one image at a time does not fit into the memory of {device}"
        raise MemoryFloorError(told, kept=kept, next=next)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return math.ceil(size / 2)


def _join(parts: Sequence[T]) -> T:
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Tensor):
        return cast(T, torch.cat(cast(Any, parts)))
    columns = zip(*cast(Any, parts), strict=True)
    return cast(T, tuple(None if column[0] is None else torch.cat(column) for column in columns))
