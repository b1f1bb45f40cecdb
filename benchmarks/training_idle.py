"""How long a GPU waits in `cdm train`: the bare step, fed by the loader, and the command itself.

    python benchmarks/training_idle.py --preset cifar-base16 --steps 500

The bare step takes one batch, which lies on the GPU, again and again. Fed, it takes batches that
are read ahead from a store. The rate of the command is of what it logs after its first tenth. A
GPU at work holds a lower clock than at first, so all sides take the same number of steps, and
the first two take turns, now one first and now the other.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterable
from contextlib import closing
from itertools import islice, repeat
from pathlib import Path

import torch
from machine import machine
from scaling import cdm, logging_every, prepare

from cdm_cli.data.batches import TrainBatch
from cdm_cli.data.store import open_store
from cdm_cli.jobs.runtime.device import make_deterministic
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.training.objective import build_objective
from cdm_cli.jobs.training.plan import open_batches
from cdm_cli.jobs.training.step import Trainer
from cdm_cli.plans import Plan
from cdm_cli.presets import preset

TURNS = 2
FIRST = 5  # steps in which kernels are chosen and recorded


def trainer_of(plan: Plan) -> Trainer:
    """Build what takes the steps."""
    device = torch.device("cuda")
    make_deterministic(device)
    objective = build_objective(plan.stage, (), plan.training, device, "auto")
    return Trainer(objective, plan.training, Session(device), cosine=False)


def rate(trainer: Trainer, batches: Iterable[TrainBatch]) -> float:
    """Return images per second of a step for each batch."""
    start, steps = time.perf_counter(), 0
    for steps, batch in enumerate(batches, 1):
        trainer.step(steps, batch)
    torch.cuda.synchronize()
    return steps * trainer.training.batch_size / (time.perf_counter() - start)


def bare_and_fed(plan: Plan, steps: int) -> dict[str, list[float]]:
    """Return the rates of both, in turns."""
    trainer, rates = trainer_of(plan), {"bare": list[float](), "fed": list[float]()}
    with open_store("data.h5") as store:
        batches = open_batches(plan, store, World())
        with closing(batches.iterate(1, trainer.device)) as fed:
            held = next(fed)
        rate(trainer, repeat(held, FIRST))
        for side in ["bare", "fed", "fed", "bare"] * TURNS:
            if side == "bare":
                rates[side].append(rate(trainer, repeat(held, steps)))
                continue
            with closing(batches.iterate(1, trainer.device)) as fed:
                rate(trainer, islice(fed, FIRST))
                rates[side].append(rate(trainer, islice(fed, steps)))
    return rates


def command_rates(plan: Plan, steps: int) -> list[float]:
    """Return what `cdm train` logs, but for its first tenth."""
    words = ["--steps", str(steps), "--batch-size", str(plan.training.batch_size)]
    words += ["--preset", plan.preset, "--no-compile", *logging_every(steps // 10)]
    cdm("train", "stage", *words)
    lines = Path("runs/stage/metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["images_per_second"] for line in lines[1:]]


def main() -> None:
    """Measure and print all three, as images per second and beside the bare step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="cifar-base16")
    parser.add_argument("--steps", type=int, default=500, help="of every side at a time")
    parser.add_argument("--batch-size", type=int, help="instead of the preset's own")
    arguments = parser.parse_args()
    plan = preset(arguments.preset)
    if arguments.batch_size:
        training = plan.training.model_copy(update={"batch_size": arguments.batch_size})
        plan = plan.model_copy(update={"training": training})
    print(f"{machine()}, {arguments.preset}")
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        prepare(arguments.preset, per_class=2000)
        rates = bare_and_fed(plan, arguments.steps)
        torch.cuda.empty_cache()
        rates["cdm train"] = command_rates(plan, arguments.steps)
        os.chdir("/")
    bare = statistics.harmonic_mean(rates["bare"])
    for side, all_rates in rates.items():
        mean = statistics.harmonic_mean(all_rates)  # images over time, pauses among it
        listed = " ".join(f"{r:.0f}" for r in all_rates)
        print(f"{side:10s} {mean:9.1f} images/s, {mean / bare:.1%} of bare ({listed})")


if __name__ == "__main__":
    main()
