"""A function of tensors as one CUDA graph: a GPU starts all of its kernels by itself.

Between two kernels of a small network a GPU would wait for Python, most of the time
(docs/performance-journal.md). The kernels are the same ones, and so are the bits.
"""

import gc
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from cdm_cli.nets.kernels.rehearsal import rehearse
from cdm_cli.nets.memory import translate_memory_errors

Tensors = tuple[Tensor | None, ...]
Function = Callable[..., Tensors]
Nested = TypeVar("Nested")  # a tensor, None, or a tuple of such, named or not


def leaves(values: Any) -> Iterator[Tensor | None]:
    """Yield the tensors, and None in their place, of what a recording takes: flat, in order."""
    if isinstance(values, tuple):
        for value in cast(tuple[Any, ...], values):
            yield from leaves(value)
    else:
        yield values


def map_tensors(function: Callable[[Tensor], Tensor], values: Nested) -> Nested:
    """Apply a function to each tensor of nested tuples; None stays None."""
    inside: Any = values
    result: Any = None
    if isinstance(inside, tuple):
        items: list[Any] = [map_tensors(function, value) for value in cast(tuple[Any, ...], inside)]
        result = inside._make(items) if hasattr(inside, "_make") else tuple(items)  # pyright: ignore
    elif inside is not None:
        result = function(inside)
    return result


class Recorded:
    """Call a function of tensors; where shapes come again, replay the kernels of that call.

    function: it takes tensors, None, or tuples of such, as a batch; it does the same work for all
    tensors of the same shapes, waits for nothing on the device, draws from torch's default
    generator alone, and finds its weights where they were.
    What is returned holds until the next call.
    """

    def __init__(self, function: Function) -> None:
        self._function = function
        self.forget()

    def forget(self) -> None:
        """Give back the device memory that a recording holds."""
        self._met: object = None
        self._recording: Function | None = None

    def __call__(self, *inputs: Any) -> Tensors:
        """Return what the function returns."""
        kinds = tuple(map(_kind, leaves(inputs)))
        if kinds != self._met:  # a first call compiles, chooses and allocates
            self._met, self._recording = kinds, None
            return rehearse(self._function, *inputs)
        if self._recording is None:
            self._recording = record_if_it_fits(self._function, inputs)
        return self._recording(*inputs)


def record_if_it_fits(function: Function, inputs: tuple[Any, ...]) -> Function:
    """Return a recording of the function; the function itself where memory is too small for one."""
    try:
        with translate_memory_errors():
            return Recording(function, inputs)
    except torch.OutOfMemoryError:
        pass  # outside the handler, the traceback no longer holds what was computed
    torch.cuda.empty_cache()
    return function


def _kind(x: Tensor | None) -> object:
    return None if x is None else (x.shape, x.stride(), x.dtype, x.is_inference())


def _same_kind(x: Tensor) -> Tensor:
    with torch.inference_mode(x.is_inference()):
        return x.clone()


@contextmanager
def pause_collection() -> Generator[None]:
    """Collect garbage now and none within: freeing a recording while another is made spoils it."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Recording:
    """The kernels of one call, and the memory that they read and write."""

    def __init__(self, function: Function, inputs: tuple[Any, ...]) -> None:
        held = map_tensors(_same_kind, inputs)  # another kind would be compiled anew
        self._inputs = list(leaves(held))
        self._graph: Any = torch.cuda.CUDAGraph()
        # Other threads read images and watch NCCL meanwhile.
        with pause_collection(), torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._outputs = function(*held)

    def __call__(self, *inputs: Any) -> Tensors:
        """Replay them for other inputs of the same shapes."""
        with torch.inference_mode():
            for held, given in zip(self._inputs, leaves(inputs), strict=True):
                if held is not None and given is not None:
                    held.copy_(given)
        self._graph.replay()
        return self._outputs
