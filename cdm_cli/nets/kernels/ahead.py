"""What a GPU asks of a process once, done in a thread while torch is imported.

CUDA looks at its devices and sets up one of them (0.4 s), and Triton hashes its own library,
hundreds of MB, before it finds any kernel on the disk (0.6 s): neither needs torch, and Python
goes on meanwhile.
"""

import ctypes
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # of Linux, and of Linux under Windows

_begun: list[threading.Thread] = []


def begin(device: int = 0) -> None:
    """Start the thread where there may be a GPU; to be called before torch is imported.

    device: the number of the one that will compute, 0..
    """
    if not _begun and any(path.exists() for path in DRIVERS):
        _begun.append(threading.Thread(target=_prepare, args=(device,), name="ahead"))
        _begun[0].start()


def finish() -> None:
    """Return once all of it is done, here where no thread has begun it."""
    if _begun:
        _begun[0].join()
    else:
        _hash_triton()


def _prepare(device: int) -> None:
    with suppress(OSError, AttributeError):  # torch will say what is wrong with a driver
        _set_up(ctypes.CDLL("libcuda.so.1"), device)
    _hash_triton()


def _set_up(cuda: Any, device: int) -> None:
    """Make the context that CUDA's runtime, and torch with it, will find and use."""
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")  # what is not called is not loaded
    handle, context = ctypes.c_int(), ctypes.c_void_p()
    if cuda.cuInit(0) == 0 and cuda.cuDeviceGet(ctypes.byref(handle), device) == 0:
        cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle)


def _hash_triton() -> None:
    """Have Triton compute what it keeps for as long as the process lives."""
    with suppress(Exception):  # whoever launches a kernel is told, and none may
        from triton.runtime.cache import triton_key

        triton_key()
