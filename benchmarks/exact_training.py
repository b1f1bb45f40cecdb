"""What `cdm train --exact` costs beside training as it is by default, and whether it is exact.

    python benchmarks/exact_training.py [--preset P …] [--gpus 1 2] [--batch N] [--device cpu]

Of each preset, on each number of GPUs: steps a second as by default, exactly, and as by default
once more, of the preset's own batch on images that are drawn, replayed but not compiled. Then the
weights and averages after the exact steps are compared with those of the other numbers of GPUs.
"""

import argparse
import hashlib
import math
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from machine import machine
from torch import Tensor

from cdm_cli.config import StageConfig
from cdm_cli.data.batches import TrainBatch
from cdm_cli.jobs.runtime.device import choose_precision, wait
from cdm_cli.jobs.runtime.launch import launch_processes
from cdm_cli.jobs.runtime.session import Session, Silent, take_part
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.training.objective import Objective, build_objective
from cdm_cli.jobs.training.plan import VIRTUAL_RANKS
from cdm_cli.jobs.training.step import Trainer
from cdm_cli.options.sampling import Compute
from cdm_cli.plans import Plan
from cdm_cli.presets import preset
from cdm_cli.report import Report

WARM, STEPS, SECONDS = 3, 3, 3.0  # steps that are timed: so many, or those of so many seconds
EXACT_STEPS = 5  # behind which bits are compared


@dataclass(frozen=True)
class Ways:
    """Steps a second by default and exactly, and what was trained by the exact ones."""

    default: list[float]
    exact: float
    parts: tuple[int, int]  # images at a time
    digest: str
    log: tuple[float, float]


def batch_of(plan: Plan, world: World, device: torch.device) -> TrainBatch:
    """Return this process's share of a batch that is drawn, the same in all."""
    assert isinstance(plan.stage, StageConfig), "a classifier is no stage of a cascade"
    model, low, num = plan.stage.model, plan.stage.conditioning, plan.training.batch_size
    generator = torch.Generator().manual_seed(0)
    share = num // world.size
    rows = slice(world.rank * share, (world.rank + 1) * share)

    def images(side: int) -> Tensor:
        shape = num, model.channels, side, side
        drawn = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return drawn[rows].to(device)

    y = torch.randint(0, max(model.num_classes, 1), (num,), generator=generator)
    small = images(low.resolution) if low else None
    return TrainBatch(images(model.resolution), small, y[rows].to(device))


def rate(trainer: Trainer, batch: TrainBatch, first: int) -> float:
    """Return the steps a second of a trainer that has taken its first steps."""

    def timed(num: int) -> float:
        nonlocal first
        wait(trainer.device)
        trainer.world.barrier()
        start = time.perf_counter()
        for step in range(first, first + num):
            trainer.step(step, batch)
        wait(trainer.device)
        first += num
        return max(trainer.world.gather(time.perf_counter() - start)) / num

    each = timed(STEPS)
    return 1 / (each if each * STEPS >= SECONDS else timed(math.ceil(SECONDS / each)))


def digest_of(trainer: Trainer) -> str:
    """Return the SHA-256 of the weights and their averages."""
    found = hashlib.sha256()
    for tensors in (trainer.objective.net.state_dict(), trainer.ema.state_dict()):
        for tensor in tensors.values():
            found.update(tensor.detach().cpu().contiguous().numpy().data)
    return found.hexdigest()


def fresh(
    plan: Plan, objective: Objective, start: Mapping[str, Tensor], session: Session, ranks: int
) -> Trainer:
    """Return a trainer of the first weights."""
    objective.net.load_state_dict(dict(start))
    training = plan.training.model_copy(update={"virtual_ranks": ranks})
    return Trainer(objective, training, session, cosine=False)


def compare(plan: Plan, session: Session) -> Ways:
    """Time both ways in turn, from the same weights."""
    device = session.device
    precision = choose_precision("auto", device)
    objective = build_objective(plan.stage, (), plan.training, device, precision)
    start = {name: tensor.clone() for name, tensor in objective.net.state_dict().items()}
    batch = batch_of(plan, session.world, device)
    rates: list[float] = []
    parts, digest, log = [0, 0], "", (0.0, 0.0)
    for ranks in (0, VIRTUAL_RANKS, 0):
        trainer = fresh(plan, objective, start, session, ranks)
        first = EXACT_STEPS if ranks else WARM
        for step in range(1, first + 1):
            trainer.step(step, batch)
        if ranks:
            seen = trainer.read()
            digest, log = digest_of(trainer), (seen.loss, seen.grad_norm)
        rates.append(rate(trainer, batch, first + 1))
        parts[ranks > 0] = trainer.gradients.micro_batch
        trainer.gradients.release()
        del trainer
    return Ways([rates[0], rates[2]], rates[1], (parts[0], parts[1]), digest, log)


def task(plan: Plan, compute: Compute, report: Report, world: World) -> Ways:
    """Be one process."""
    return take_part(compare, plan, compute, report, world)


def tell(name: str, gpus: int, ways: Ways) -> None:
    """Print what was found, and the price."""
    first, second = ways.default
    default = statistics.mean(ways.default)
    print(
        f"{name}, {gpus} in all: by default {first:.3f} and {second:.3f} steps/s "
        f"({ways.parts[0]} images at a time), exactly {ways.exact:.3f} ({ways.parts[1]} at a "
        f"time): {default / ways.exact - 1:+.1%} time a step, where the same way twice is "
        f"{abs(first - second) / default:.1%} apart",
        flush=True,
    )


def main() -> int:
    """Return 1 where numbers of GPUs differ in a bit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--preset", nargs="+", default=["cifar-base16", "imagenet-base32"])
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, help="instead of the preset's own")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    given = parser.parse_args()
    print(machine(), flush=True)
    differ = 0
    for name in given.preset:
        plan = preset(name)
        if given.batch:
            training = plan.training.model_copy(update={"batch_size": given.batch})
            plan = plan.model_copy(update={"training": training})
        found: list[Ways] = []
        for gpus in given.gpus:
            compute = Compute(device=given.device, gpus=gpus)
            found.append(launch_processes(partial(task, plan, compute), compute, Silent()))
            tell(name, gpus, found[-1])
        same = all((each.digest, each.log) == (found[0].digest, found[0].log) for each in found)
        differ += not same
        told = "the same bits" if same else "NOT the same bits"
        numbers = " and ".join(map(str, given.gpus))
        print(f"{name}: weights, averages, loss and norm after {EXACT_STEPS} exact steps: {told} "
              f"on {numbers}: {found[0].digest[:16]}", flush=True)  # fmt: skip
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
