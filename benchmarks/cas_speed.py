"""A training step of `cdm eval cas`: its kernels launched one by one, beside one CUDA graph.

    python benchmarks/cas_speed.py [--steps 100]

Each side twice in turn, in one process. GiB is the most that torch reserved, images not counted.
"""

import argparse
import time
from contextlib import AbstractContextManager, nullcontext
from unittest.mock import patch

import torch
from machine import machine

from cdm_cli.data.batches import TrainBatch
from cdm_cli.jobs.cas.recipe import choose_recipe
from cdm_cli.jobs.cas.step import Fit
from cdm_cli.jobs.runtime.device import make_deterministic
from cdm_cli.jobs.runtime.world import World
from cdm_cli.names import CasNet
from cdm_cli.options.cas import CasOptions

CASES: tuple[tuple[CasNet, int, int], ...] = (  # network, side of the images, images of a step
    ("resnet18", 32, 256),
    ("resnet50", 32, 256),
    ("resnet50", 256, 256),
    ("resnet50", 256, 64),
)
WARM = 5  # steps: kernels are chosen, and recorded


def launch_one_by_one() -> AbstractContextManager[object]:
    """Return what to enter so that no call is recorded."""
    return patch(
        "cdm_cli.nets.kernels.recorded.record_if_it_fits", lambda function, inputs: function
    )


def time_step(net: CasNet, side: int, batch: int, steps: int) -> tuple[float, float]:
    """Return the seconds of a step, and GiB."""
    device = torch.device("cuda")
    recipe = choose_recipe(
        CasOptions(net=net, batch_size=batch), resolution=side, channels=3, num_classes=10,
        num=50_000, precision="bf16", seed=0,
    )  # fmt: skip
    shape = (batch, 3, side, side)
    x_0 = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    images = TrainBatch(x_0, None, torch.randint(0, 10, (batch,), device=device))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    fit = Fit(recipe, device, World())
    for step in range(1, WARM + 1):
        fit.step(step, images)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for step in range(WARM + 1, WARM + 1 + steps):
        fit.step(step, images)
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - start) / steps
    fit.release()
    return seconds, torch.cuda.max_memory_reserved() / 2**30


def main() -> None:
    """Print a line for each case and side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    steps = parser.parse_args().steps
    print(machine())
    make_deterministic(torch.device("cuda"))
    for case in CASES:
        for name in ("launched", "replayed") * 2:
            with launch_one_by_one() if name == "launched" else nullcontext():
                seconds, memory = time_step(*case, steps)
            print(f"{' '.join(map(str, case))} {name}: {1000 * seconds:.1f} ms, {memory:.2f} GiB")


if __name__ == "__main__":
    main()
