"""`cdm env`: what a report of a fault says of the machine; no secret, no path outside."""

import os
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cdm_cli.__version__ import __version__
from cdm_cli.errors import CdmError
from cdm_cli.names import DATA_ENV, DEVICE_ENV, RUNS_ENV, Device
from cdm_cli.options.workspace import EnvOptions
from cdm_cli.report import Report

PACKAGES = (
    "torch", "numpy", "pydantic", "typer", "scipy", "pillow", "matplotlib", "rich", "torchvision",
    "triton", "clean-fid", "h5py", "tensorboard",
)  # fmt: skip
PATHS = (RUNS_ENV, DATA_ENV)
WORDS = (
    DEVICE_ENV, "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "WORLD_SIZE", "SLURM_NTASKS",
    "CUBLAS_WORKSPACE_CONFIG",
)  # fmt: skip
LONGEST = 64  # characters of a value that is shown
OUTSIDE = "set, a path outside the workspace"


def run(options: EnvOptions, report: Report) -> dict[str, Any]:
    """Return versions, device and settings by name. What cannot be found out says so."""
    del report
    return {
        "cdm": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "memory": _describe_or_explain(_measure_memory),
        **{f"package {name}": _find_version(name) for name in PACKAGES},
        **_describe_torch(options.device),
        **{f"environment {name}": value for name, value in list_variables(os.environ).items()},
    }


def _find_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _describe_or_explain(tell: Callable[[], str]) -> str:
    """Return what is told, or what kept it from being told: torch may be what is broken."""
    try:
        return tell()
    except (CdmError, ImportError, OSError, RuntimeError, ValueError) as error:
        return f"not known: {type(error).__name__}"


def _measure_memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"


def _describe_torch(choice: Device) -> dict[str, str]:
    """Return the device, its build, how many there are, and what `--precision auto` is on it."""

    def look(tell: Callable[[Any, Any], str]) -> str:
        def with_torch() -> str:
            from cdm_cli.jobs.runtime import device

            return tell(device, device.pick_device(choice))

        return _describe_or_explain(with_torch)

    def count_devices() -> str:
        import torch

        return str(torch.cuda.device_count())

    return {
        "device": look(lambda on, device: on.describe(device)),
        "build": look(lambda on, device: on.describe_build(device)),
        "precision": look(lambda on, device: f"auto is {on.choose_precision('auto', device)}"),
        "cuda devices": _describe_or_explain(count_devices),
    }


def list_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that cdm reads, and that are set.

    Of a path only what is inside the workspace is shown, of any other value LONGEST characters.
    """
    found = {name: _describe_path(environ[name]) for name in PATHS if environ.get(name)}
    return found | {name: environ[name][:LONGEST] for name in WORDS if environ.get(name)}


def _describe_path(path: str) -> str:
    here = Path.cwd()
    whole = Path(os.path.normpath(here / path))
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else OUTSIDE
