"""What a Classification Accuracy Score will cost, before anything is trained."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import count

import torch
from torch import nn

from cdm_cli.data.batches import TrainBatch
from cdm_cli.errors import MemoryFloorError
from cdm_cli.jobs.cas.plan import CasWork
from cdm_cli.jobs.cas.recipe import CasRecipe
from cdm_cli.jobs.cas.step import Fit
from cdm_cli.jobs.runtime.device import describe, measure_flops, wait
from cdm_cli.jobs.runtime.foretold import LONGEST, RECKONED, TIMED
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.sampling.pace import measure_pace
from cdm_cli.nets.counting import FORWARD_AND_BACKWARD, count_parameters
from cdm_cli.nets.resnet import build_cas_network

# Share of the speed of one large matrix product that a whole training step reaches.
EFFICIENCY = {"cuda": 0.07, "cpu": 0.25}
WARM = 2  # steps that are not timed


def build_without_memory(recipe: CasRecipe) -> nn.Module:
    """Build the network of a recipe without its weights; raise what torchvision raises."""
    with torch.device("meta"):
        return build_cas_network(
            recipe.network, resolution=recipe.resolution, channels=recipe.channels,
            num_classes=recipe.num_classes,
        )  # fmt: skip


def estimate_cas(
    work: CasWork, device: torch.device, classifiers: int, processes: int = 1
) -> dict[str, object]:
    """Return by name the images, FLOPs and estimated seconds of training so many classifiers.

    processes: how many share a batch.
    """
    from torch.utils.flop_counter import FlopCounterMode  # which imports Triton

    recipe, net = work.recipe, build_without_memory(work.recipe)
    image = torch.empty(1, recipe.channels, recipe.crop, recipe.crop, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(image)
    flops = counter.get_total_flops()
    seen = recipe.steps * recipe.batch_size
    total = classifiers * flops * (FORWARD_AND_BACKWARD * seen + work.val.num)
    speed = measure_flops(device, recipe.precision) * EFFICIENCY[device.type]
    a_step = FORWARD_AND_BACKWARD * flops * recipe.batch_size / (speed * processes)
    timed = _time_steps(recipe, device, processes) if classifiers and a_step < LONGEST else None
    a_test = flops * work.val.num / (speed * processes)
    seconds = classifiers * (recipe.steps * (1 / timed if timed else a_step) + a_test)
    return {
        "samples": work.samples.images.num,
        "real_images": work.real.images.num,
        "validation_images": work.val.num,
        "classes": recipe.num_classes,
        "parameters": count_parameters(net),
        "flops_per_image": flops,
        "classifiers_to_train": classifiers,
        "network_evaluations": classifiers * (seen + work.val.num),
        "training_flops": total,
        "checkpoint_bytes": 8 * count_parameters(net),
        "disk_bytes": classifiers * 2 * 8 * count_parameters(net),
        "device": describe(device),
        "estimated_seconds": round(seconds, 1),
        "estimated_by": TIMED if timed else RECKONED,
        "recipe": recipe.model_dump(),
    }


def _time_steps(recipe: CasRecipe, device: torch.device, processes: int) -> float | None:
    """Time training on noise, of the share of one process; return the steps a second.

    Where images are small a step takes as long as a processor needs to start its kernels, which no
    count of FLOPs tells. None where a step does not fit into memory.
    """
    mine = recipe.model_copy(update={"batch_size": max(1, recipe.batch_size // processes)})

    def take_steps() -> Iterator[None]:
        fit, batch = Fit(mine, device, World()), _draw_batch(mine, device)
        for step in count(1):
            yield fit.step(step, batch)

    with suppress(MemoryFloorError, torch.OutOfMemoryError):
        return measure_pace(take_steps(), WARM, lambda: wait(device))
    return None


def _draw_batch(recipe: CasRecipe, device: torch.device) -> TrainBatch:
    """Return noise with labels, drawn from a generator of its own: a plan changes nothing."""
    B, side = recipe.batch_size, recipe.resolution
    x_0 = torch.randint(
        256, (B, recipe.channels, side, side), dtype=torch.uint8, device=device,
        generator=torch.Generator(device).manual_seed(0),
    )  # fmt: skip
    return TrainBatch(x_0, None, torch.arange(B, device=device) % recipe.num_classes)
