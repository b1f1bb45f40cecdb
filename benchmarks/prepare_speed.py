"""`cdm prepare` beside a plain Pillow loop: images a second, in one run on one machine.

    python benchmarks/prepare_speed.py --num 1000

Draws photo-like JPEGs (1/f noise, quality 90) into class folders. The plain loop opens, converts
to RGB, cuts the centre square and resizes with Image.BOX, on one core. `cdm prepare` runs on all
images and on the first fifth; the difference has no start-up in it. CPU seconds, of all processes
together, tell more than wall clock where other work runs.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, features

from cdm_cli.data.resize import cut_centre_square

CLASSES = 4
RESOLUTIONS = ((64,), (64, 256))


class Cost(NamedTuple):
    """Seconds of wall clock, and of all cores together."""

    wall: float
    cpu: float

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.wall - other.wall, self.cpu - other.cpu)


def photo(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Return 1/f noise whose channels have most in common."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1
    layers = []
    for _ in range(4):
        spectrum = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
        layer = np.fft.irfft2(spectrum / frequency, (height, width))
        layers.append((layer - layer.mean()) / layer.std())
    x = 0.85 * layers[0][..., None] + 0.4 * np.stack(layers[1:], axis=-1)
    return Image.fromarray(np.clip(118 + 55 * x, 0, 255).astype(np.uint8))


def drawn(root: Path, num: int, size: tuple[int, int]) -> list[Path]:
    """Write num JPEGs into class folders; every 50th is drawn, the others are shifts of it."""
    rng, paths, pixels = np.random.default_rng(0), list[Path](), np.empty(0, np.uint8)
    for i in range(num):
        if i % 50 == 0:
            pixels = np.asarray(photo(rng, size[1], size[0]))
        path = root / f"class{i % CLASSES}" / f"{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        shifted = np.roll(pixels, tuple(rng.integers(0, size)), axis=(1, 0))
        Image.fromarray(shifted).save(path, quality=90)
        paths.append(path)
    return paths


def timed(work: Callable[[], object]) -> Cost:
    """Return what work cost, its child processes included."""
    before = time.perf_counter(), _cpu()
    work()
    return Cost(time.perf_counter() - before[0], _cpu() - before[1])


def _cpu() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def plain(paths: Sequence[Path], resolutions: Sequence[int]) -> None:
    """Do what a loop of a few lines would do."""
    for path in paths:
        square = cut_centre_square(Image.open(path).convert("RGB"))
        for resolution in resolutions:
            np.asarray(square.resize((resolution, resolution), Image.Resampling.BOX))


def prepare(root: Path, resolutions: Sequence[int], workers: int, *flags: str) -> None:
    """Run `cdm prepare`, and remove the store."""
    with tempfile.TemporaryDirectory(dir=root.parent) as directory:
        out = str(Path(directory) / "data.h5")
        words = [word for res in resolutions for word in ("--resolution", str(res))]
        command = ["prepare", str(root), "-o", out, "--workers", str(workers), "--channels", "3"]
        subprocess.run(
            [sys.executable, "-m", "cdm_cli", *command, *words, *flags],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def rows(root: Path, paths: Sequence[Path], cores: int, flags: Sequence[str], repeat: int) -> None:
    """Print the table: the best of several runs of each."""
    few, num = root.with_name("few"), len(paths) // 5
    for path in paths[:num]:
        copy = few / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.hardlink_to(path)
    for resolutions in RESOLUTIONS:
        base = _best(repeat, partial(plain, paths, resolutions))
        base = Cost(*(seconds * (1 - num / len(paths)) for seconds in base))
        _row(resolutions, "plain Pillow loop", 1, len(paths) - num, base, base)
        for workers in sorted({1, cores}):
            whole, start = (
                _best(repeat, partial(prepare, folder, resolutions, workers, *flags))
                for folder in (root, few)
            )
            _row(resolutions, "cdm prepare", workers, len(paths) - num, whole - start, base)


def _best(repeat: int, work: Callable[[], object]) -> Cost:
    costs = [timed(work) for _ in range(repeat)]
    return Cost(min(cost.wall for cost in costs), min(cost.cpu for cost in costs))


def _row(
    resolutions: Sequence[int], what: str, workers: int, num: int, cost: Cost, base: Cost
) -> None:
    print(
        f"| {'+'.join(map(str, resolutions))} | {what} | {workers} | {num / cost.wall:.0f} |"
        f" {num / cost.cpu:.0f} | {base.cpu / cost.cpu:.2f} | {base.wall / cost.wall:.2f} |",
        flush=True,
    )


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


def main() -> None:
    """Draw, time, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--size", type=int, nargs=2, default=(500, 375), metavar=("W", "H"))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--draft", action="store_true")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{_machine()}, {cores} cores, load {os.getloadavg()[0]:.1f}")
    turbo = features.version("libjpeg_turbo")
    print(f"Python {platform.python_version()}, Pillow {Image.__version__}, libjpeg-turbo {turbo}")
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "photos"
        paths = drawn(root, arguments.num, tuple(arguments.size))
        total = sum(path.stat().st_size for path in paths)
        print(f"{len(paths)} JPEGs, {total / len(paths) / 1024:.0f} KiB each\n")
        print("| resolutions | what | processes | images/s | per CPU s | of plain, CPU | wall |")
        print("|---|---|---|---|---|---|---|")
        rows(root, paths, cores, ["--draft"] * arguments.draft, arguments.repeat)


if __name__ == "__main__":
    main()
