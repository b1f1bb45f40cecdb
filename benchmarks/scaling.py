"""Images per second of training and of sampling on several GPUs, beside one.

    python benchmarks/scaling.py train --preset imagenet-base32
    python benchmarks/scaling.py sample --preset cifar-base16

Training: the preset's own global batch on drawn images; the rate is the median of what is logged
after the first steps, and then the run is killed: its checkpoint is not what is measured.
Sampling: the store is watched, from when it has as many blocks as there are processes to its last
block, so that starting does not count, which takes longer or shorter by seconds. Each run is the
command that a user types.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine

from cdm_cli.config import StageConfig
from cdm_cli.data.store import open_store
from cdm_cli.jobs.demo.drawing import write_images
from cdm_cli.jobs.sampling.blocks import choose_block_size
from cdm_cli.presets import preset


def cdm(*words: str) -> float:
    """Run a command; return its seconds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "cdm_cli", *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def prepare(name: str, per_class: int = 64) -> None:
    """Draw images of the resolutions that a preset needs."""
    stage = preset(name).stage
    assert isinstance(stage, StageConfig), "a classifier has a step of its own"
    resolution = stage.model.resolution
    write_images(Path("train.zip"), per_class=per_class, resolution=resolution, seed=0)
    sides = [resolution]
    if stage.conditioning:
        sides.append(stage.conditioning.resolution)
    flags = [word for side in sides for word in ("--resolution", str(side))]
    cdm("prepare", "train.zip", "-o", "data.h5", *flags)


def logging_every(steps: int) -> list[str]:
    """Return the flags of a training run that logs, and does nothing else beside its steps."""
    settings = {"log_every": max(1, steps), "save_every": 10**6, "grid_every": 0}
    return [w for key, value in settings.items() for w in ("--set", f"training.{key}={value}")]


def training_rate(name: str, steps: int, gpus: int) -> float:
    """Return the images per second of training, between the first steps and the last ones."""
    words = ["train", f"on{gpus}", "--preset", name, "--steps", str(10**6), "--no-compile"]
    with subprocess.Popen(
        [sys.executable, "-m", "cdm_cli", *words, "--gpus", str(gpus), *logging_every(steps // 4)],
        start_new_session=True,
    ) as process:
        log = Path(f"runs/on{gpus}/metrics.jsonl")
        while not log.exists() or log.read_text().count("\n") < 5:
            if process.poll() is not None:
                sys.exit("the training run ended by itself")
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGKILL)
    rates = [json.loads(line)["images_per_second"] for line in log.read_text().splitlines()[1:5]]
    return statistics.median(rates)


def sampling_rate(num: int, steps: int, gpus: int) -> float:
    """Return the images per second from the first blocks, one a process, to the last block."""
    out = Path(f"{gpus}.h5")
    flags = ["--num", str(num), "--steps", str(steps), "--gpus", str(gpus), "-o", str(out)]
    words = [sys.executable, "-m", "cdm_cli", "sample", "stage", *flags, "--no-compile"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        begun = moment(process, out, gpus)
        ended = moment(process, out, num // choose_block_size(num))
    return (num - gpus * choose_block_size(num)) / (ended - begun)


def moment(process: subprocess.Popen[bytes], out: Path, blocks: int) -> float:
    """Wait until a store that is being made has so many blocks; return the time."""
    while done(out) < blocks:
        if process.poll() is not None and done(out) < blocks:
            sys.exit("the command ended too early")
        time.sleep(0.02)
    return time.monotonic()


def done(out: Path) -> int:
    """Return how many blocks are there."""
    if not out.exists():
        return 0
    with open_store(out) as store:
        part = store.parts[""]
        return part.num_blocks - len(part.list_missing())


def main() -> None:
    """Measure with one GPU, then with several, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=["train", "sample"])
    parser.add_argument("--preset", default="imagenet-base32")
    parser.add_argument(
        "--steps", type=int, help="of training that are timed (8), or of a sample (100)"
    )
    parser.add_argument("--num", type=int, default=24576, help="samples")
    parser.add_argument("--gpus", type=int, default=2)
    arguments = parser.parse_args()
    rounds, left = divmod(arguments.num, choose_block_size(arguments.num) * arguments.gpus)
    if arguments.mode == "sample" and (left or rounds < 2):
        parser.error(f"--num {arguments.num}: no two or more blocks for each GPU, evenly")
    print(f"{machine()}, {arguments.preset}")
    rates: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        prepare(arguments.preset)
        if arguments.mode == "sample":
            cdm("train", "stage", "--preset", arguments.preset, "--steps", "1", "--no-compile")
        for gpus in sorted({1, arguments.gpus}):
            rates[gpus] = (
                training_rate(arguments.preset, arguments.steps or 8, gpus)
                if arguments.mode == "train"
                else sampling_rate(arguments.num, arguments.steps or 100, gpus)
            )
            print(f"{arguments.mode}, {gpus} GPUs: {rates[gpus]:.1f} images/s", flush=True)
        os.chdir("/")
    print(f"ratio: {rates[arguments.gpus] / rates[1]:.3f}")


if __name__ == "__main__":
    main()
