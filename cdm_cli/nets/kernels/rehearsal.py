"""A first call, whose Triton kernels are compiled side by side instead of one after another.

Triton compiles a kernel where it is first launched: one core works, and the GPU waits, 15 s for the
forty kernels of a training step (docs/performance-journal.md). In a rehearsal threads do so, and a
kernel that is not there within a moment is not launched; the call is then made again. Kernels that
an earlier run has compiled are there within a moment, and the rehearsal is the call: what Triton
needs before the first of them (`ahead`) is waited for, and is no reason to call again.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from cdm_cli.nets.kernels import ahead
from cdm_cli.startup import measure_part

MOMENT = 0.2  # seconds: a kernel is found on the disk in some hundredths, compiled in 0.3
MOST_THREADS = 16

R = TypeVar("R")
Constants = dict[str, Any]


class Alike:
    """What decides the kernel that a tensor is launched with: its dtype and where it begins.

    Without its memory, which would be held until a thread gets there.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.dtype, self._pointer = tensor.dtype, tensor.data_ptr() % 16

    def data_ptr(self) -> int:
        """Return an address that is aligned as the tensor is."""
        return self._pointer

    def key(self) -> object:
        """Return what is equal for the same kernel."""
        return self.dtype, self._pointer


class Rehearsal:
    """While entered, kernels that take time to be compiled are handed to threads, not launched.

    postponed: whether there was one, so that what was computed meanwhile is no result.
    """

    def __init__(self, prepare: Callable[[], object] = lambda: None) -> None:
        """prepare: what each thread does first."""
        threads = max(1, min(MOST_THREADS, len(os.sched_getaffinity(0))))
        self._pool = ThreadPoolExecutor(threads, initializer=prepare)
        self._begun: dict[object, Future[object]] = {}
        self.postponed = False

    def __enter__(self) -> Self:
        global _current
        _current = self
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the threads. What failed there fails again where it is launched, with words."""
        global _current
        _current = None
        with measure_part("kernels"):
            wait(self._begun.values())
        self._pool.shutdown()

    def launch(self, kernel: Any, grid: Any, args: tuple[Any, ...], constants: Constants) -> None:
        """Launch a kernel if it is there in a moment; else let it be compiled."""
        seen = tuple(Alike(x) if isinstance(x, Tensor) else x for x in args)
        key = (id(kernel), *map(_key, seen), *constants.items())
        if key not in self._begun:
            self._begun[key] = self._pool.submit(_compile, kernel, grid, seen, constants)
        if not self.postponed:
            done, _ = wait([self._begun[key]], MOMENT)
            self.postponed = not done
        if not self.postponed:
            kernel[grid](*args, **constants)


_current: Rehearsal | None = None  # of this process: gradients are computed in another thread


def when_ready(kernel: Any) -> Any:
    """Return what launches a kernel as `kernel[grid](…)`: within a rehearsal, once it is there.

    A kernel that torch has wrapped, to trace it, is left as it is.
    """
    return kernel if _current is None or not hasattr(kernel, "warmup") else _Launch(kernel)


class _Launch:
    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def launch(*args: Any, **constants: Any) -> None:
            assert _current is not None
            _current.launch(self._kernel, grid, args, constants)

        return launch


def rehearse(function: Callable[..., R], *inputs: Any) -> R:
    """Return function(*inputs), called again if it had to wait for kernels; on CUDA alone.

    The function draws from torch's default generators at most, and what it computes from memory
    that nobody has filled is dropped.
    """
    if not torch.cuda.is_initialized():
        return function(*inputs)
    with measure_part("kernels"):
        ahead.finish()
    device, drawn = torch.cuda.current_device(), (torch.get_rng_state(), torch.cuda.get_rng_state())
    with Rehearsal(partial(torch.cuda.set_device, device)) as rehearsal:
        result = function(*inputs)
    if not rehearsal.postponed:
        return result
    del result
    torch.set_rng_state(drawn[0])
    torch.cuda.set_rng_state(drawn[1])
    return function(*inputs)


def _key(argument: Any) -> object:
    """Return what Triton compiles a kernel anew for."""
    if isinstance(argument, Alike):
        return argument.key()
    whole = isinstance(argument, int) and not isinstance(argument, bool)
    return ("int", argument == 1, argument % 16 == 0, argument < 2**31) if whole else argument


def _compile(kernel: Any, grid: Any, args: tuple[Any, ...], constants: Constants) -> object:
    """Compile a kernel, or find it, and load it with what launches it."""
    compiled = kernel.warmup(*args, grid=grid, **constants)
    return getattr(compiled, "run", None)
