"""Where a job computes: the device, its precision, and how both are named to the user."""

import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch

from cdm_cli.__version__ import __version__
from cdm_cli.errors import UsageError
from cdm_cli.names import Device, Precision
from cdm_cli.options.sampling import Compute

GiB = 2**30


def pick_device(choice: Device, local_rank: int = 0) -> torch.device:
    """Return the device of a process: a CUDA device if there is one, unless told otherwise.

    Raises UsageError where CUDA is asked for and torch finds none.
    """
    there = torch.cuda.is_available()
    if choice == "cuda" and not there:
        built = torch.version.cuda or "without CUDA"
        raise UsageError(
            f"--device cuda: torch {torch.__version__} (CUDA {built}) finds no CUDA device",
            next="--device cpu, or check nvidia-smi",
        )
    if choice == "cpu" or not there:
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise UsageError(
            f"process {local_rank} of this host has no CUDA device of its own: there are "
            f"{torch.cuda.device_count()}",
            next=f"--gpus {torch.cuda.device_count()}",
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def check_processes(compute: Compute) -> None:
    """Raise UsageError where this machine has fewer devices than --gpus asks for."""
    processes, there = compute.gpus or 1, torch.cuda.device_count()
    if processes > 1 and compute.device != "cpu" and there < processes:
        raise UsageError(
            f"--gpus {processes}: torch finds {there} CUDA devices",
            next=f"--gpus {there}" if there else "leave --gpus away",
        )


def choose_kind(choice: Device) -> str:
    """Return "cuda" or "cpu", where a job would compute; nothing is checked yet."""
    return "cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu"


def describe(device: torch.device) -> str:
    """Return one phrase that names the device, for reports and provenance."""
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        return f"{about.name}, {about.total_memory / GiB:.0f} GiB, torch {torch.__version__}"
    return f"CPU, {os.cpu_count()} cores, torch {torch.__version__}"


def name_device_class(device: torch.device) -> str:
    """Return the kind of device within which results are bit-identical."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def describe_build(device: torch.device) -> str:
    """Return what computes on a device: within one build, bits are the same.

    cdm is of it, since another version may have other kernels.
    """
    known = f"cdm {__version__}, torch {torch.__version__}"
    if device.type == "cuda":
        return f"{known}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return f"{known}, {torch.backends.cpu.get_cpu_capability()}"


def choose_precision(choice: Precision, device: torch.device) -> Precision:
    """Return what "auto" means on this device: bf16 autocast on CUDA, fp32 elsewhere."""
    if choice != "auto":
        return choice
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def make_deterministic(device: torch.device) -> None:
    """Choose kernels that give the same bits in every run, the rest of float32 work in TF32.

    Timed choice of convolution kernels (cudnn.benchmark) would choose anew in every process,
    and a resumed run would leave the path of the undisturbed one.
    """
    if device.type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first product
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.set_float32_matmul_precision("high")


@contextmanager
def keep_seeds(device: torch.device) -> Generator[None]:
    """Leave torch's generators as the caller has them, whatever is drawn and seeded within."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


@contextmanager
def order_gradients(device: torch.device) -> Generator[None]:
    """Add up gradients in one order, as long as entered, so that they have the same bits again.

    Otherwise the backward pass of flash attention over more than about 128 positions, and that
    of an embedding in a compiled network, add in the order in which a CUDA device gets there.
    """
    if device.type != "cuda":
        yield
        return
    settings: Any = torch.utils.deterministic
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    filled, settings.fill_uninitialized_memory = settings.fill_uninitialized_memory, False
    _use_deterministic_algorithms(True, False)
    try:
        yield
    finally:
        _use_deterministic_algorithms(*before)
        settings.fill_uninitialized_memory = filled  # which costs time, and decides nothing


def _use_deterministic_algorithms(mode: bool, warn_only: bool) -> None:
    """Do as torch's function of that name, which would load the compiler to tell it as well."""
    if "torch._inductor" in sys.modules:
        torch.use_deterministic_algorithms(mode, warn_only=warn_only)
    else:
        torch._C._set_deterministic_algorithms(mode, warn_only=warn_only)  # pyright: ignore


def measure_device_memory(device: torch.device) -> int | None:
    """Return the free bytes of a CUDA device, None elsewhere."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def measure_flops(device: torch.device, precision: Precision, seconds: float = 0.2) -> float:
    """Return the floating-point operations per second of a matrix product on this device."""
    size = 4096 if device.type == "cuda" else 512
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.ones(size, size, device=device, dtype=dtype)
    torch.mm(a, a)
    wait(device)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        torch.mm(a, a)
        wait(device)
        count += 1
    return count * 2 * size**3 / (time.perf_counter() - start)


def wait(device: torch.device) -> None:
    """Return when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
