"""What a Classification Accuracy Score will cost, before anything is trained."""

import torch
from torch import nn

from cdm_cli.jobs.cas.plan import CasWork
from cdm_cli.jobs.cas.recipe import CasRecipe
from cdm_cli.jobs.runtime.device import describe, measure_flops
from cdm_cli.jobs.runtime.foretold import RECKONED
from cdm_cli.nets.counting import FORWARD_AND_BACKWARD, count_parameters
from cdm_cli.nets.resnet import build_cas_network

# Share of the speed of one large matrix product that a whole training step reaches.
EFFICIENCY = {"cuda": 0.07, "cpu": 0.25}


def build_without_memory(recipe: CasRecipe) -> nn.Module:
    """Build the network of a recipe without its weights; raise what torchvision raises."""
    with torch.device("meta"):
        return build_cas_network(
            recipe.network, resolution=recipe.resolution, channels=recipe.channels,
            num_classes=recipe.num_classes,
        )  # fmt: skip


def estimate_cas(work: CasWork, device: torch.device, classifiers: int) -> dict[str, object]:
    """Return by name the images, FLOPs and estimated seconds of training so many classifiers."""
    from torch.utils.flop_counter import FlopCounterMode  # which imports Triton

    recipe, net = work.recipe, build_without_memory(work.recipe)
    image = torch.empty(1, recipe.channels, recipe.crop, recipe.crop, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(image)
    flops = counter.get_total_flops()
    seen = recipe.steps * recipe.batch_size
    total = classifiers * flops * (FORWARD_AND_BACKWARD * seen + work.val.num)
    speed = measure_flops(device, recipe.precision) * EFFICIENCY[device.type]
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
        "estimated_seconds": round(total / speed, 1),
        "estimated_by": RECKONED,
        "recipe": recipe.model_dump(),
    }
