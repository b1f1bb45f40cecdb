"""Memory of the host: how much is free, and how freed memory is used again without page faults."""

import ctypes
import os
import platform
import re
import sys
from pathlib import Path

from PIL import Image

BLOCKS_KEPT = 8  # of at most 16 MiB
MMAP_THRESHOLD, TRIM_THRESHOLD = (-3, 2**25), (-1, 2**28)  # of mallopt, and their values


def measure_free_memory() -> int:
    """Return the bytes of the host's memory that can be used without swapping.

    Where the kernel does not say so (it is not Linux), all that there is.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return min(int(found) * 1024, _free_in_group())
    except (OSError, StopIteration, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _free_in_group() -> int:
    """Return the bytes left below the memory limit of the control group (container, SLURM job)."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        cached = re.search(r"^file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
        return int(limit) - used + (int(cached[1]) if cached else 0)
    except (OSError, ValueError):  # no group, or no limit ("max")
        return sys.maxsize


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
