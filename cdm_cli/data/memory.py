"""Memory that serves again: given back, each 4 KiB of it costs a page fault when it is wanted."""

import ctypes
import os
import platform

from PIL import Image

BLOCKS_KEPT = 8  # of at most 16 MiB
MMAP_THRESHOLD, TRIM_THRESHOLD = (-3, 2**25), (-1, 2**28)  # of mallopt, and their values


def keep_freed_memory() -> None:
    """Let the C library (glibc) keep what arrays and tensors free, for the next ones."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in (MMAP_THRESHOLD, TRIM_THRESHOLD):
            libc.mallopt(option, value)


def keep_memory_of_images() -> None:
    """Let Pillow keep the memory of an image as well, unless the environment decides."""
    keep_freed_memory()
    if "PILLOW_BLOCKS_MAX" not in os.environ:
        Image.core.set_blocks_max(BLOCKS_KEPT)
