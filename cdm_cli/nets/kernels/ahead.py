"""What a GPU asks of a process once, done in a thread while torch is imported.

CUDA looks at its devices (0.2 s), and Triton hashes its own library, hundreds of MB, before it
finds any kernel on the disk (0.6 s): neither needs torch, and Python goes on meanwhile.
"""

import ctypes
import threading
from contextlib import suppress
from pathlib import Path

DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # of Linux, and of Linux under Windows

_begun: list[threading.Thread] = []


def begin() -> None:
    """Start the thread where there may be a GPU; to be called before torch is imported."""
    if not _begun and any(path.exists() for path in DRIVERS):
        _begun.append(threading.Thread(target=_prepare, name="ahead"))
        _begun[0].start()


def finish() -> None:
    """Return once all of it is done, here where no thread has begun it."""
    if _begun:
        _begun[0].join()
    else:
        _hash_triton()


def _prepare() -> None:
    with suppress(OSError, AttributeError):  # torch will say what is wrong with a driver
        ctypes.CDLL("libcuda.so.1").cuInit(0)
    _hash_triton()


def _hash_triton() -> None:
    """Have Triton compute what it keeps for as long as the process lives."""
    with suppress(ImportError, OSError):  # whoever launches a kernel is told
        from triton.runtime.cache import triton_key

        triton_key()
