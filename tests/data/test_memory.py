"""Mirrors cdm_cli/data/memory.py."""

import platform
import subprocess
import sys

import pytest
from PIL import Image

from cdm_cli.data.images import decode
from cdm_cli.data.memory import keep_memory_of_images
from tests.drawings import encoded, pixels


def test_the_memory_of_an_image_serves_the_next_one():
    keep_memory_of_images()
    data = encoded(pixels())
    decode(data)
    before = Image.core.get_stats()["reused_blocks"]
    decode(data)
    assert Image.core.get_stats()["reused_blocks"] > before


HELD = """
import sys, torch
from pathlib import Path
from cdm_cli.data.memory import keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20

if sys.argv[1] == "kept":
    keep_freed_memory()
layers = [torch.empty(2**20).fill_(1) for _ in range(32)]
before = resident()
del layers
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is of glibc")
@pytest.mark.parametrize(("how", "least", "most"), [("kept", 0, 8), ("given back", 120, 136)])
def test_the_process_keeps_what_its_tensors_free(how, least, most):
    """128 MiB in 32 tensors: the next ones would cost a page fault for each 4 KiB given back."""
    given = int(subprocess.check_output([sys.executable, "-c", HELD, how]))
    assert least <= given <= most
