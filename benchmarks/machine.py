"""Where a benchmark ran and with what, for the first line that it prints."""

import os
import platform

import torch


def machine() -> str:
    """Return the GPU or CPU, its cores, and the versions of Python, torch and CUDA."""
    cuda = torch.cuda.is_available()
    where = torch.cuda.get_device_name() if cuda else f"CPU {platform.machine()}"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{where}, {os.cpu_count()} cores, {versions}" + f", CUDA {torch.version.cuda}" * cuda
