"""What a training run will cost, before anything is allocated or written."""

from contextlib import suppress

import torch
from torch import Tensor, nn

from cdm_cli.cascade.checkpoint import build_empty_net
from cdm_cli.config import AnyStageConfig
from cdm_cli.jobs.runtime.device import choose_precision, describe, measure_flops
from cdm_cli.jobs.runtime.foretold import LONGEST, RECKONED, TIMED
from cdm_cli.jobs.runtime.host_memory import warn_of_memory
from cdm_cli.jobs.training.gradients import CPU_MICRO_BATCH
from cdm_cli.jobs.training.pace import time_steps
from cdm_cli.names import Precision
from cdm_cli.nets.counting import (
    FORWARD_AND_BACKWARD,
    build_meta_inputs,
    count_flops_per_image,
    count_parameters,
)
from cdm_cli.plans import Plan
from cdm_cli.report import Report

FLOAT32 = 4
CHECKPOINT = (
    16  # bytes of a parameter: weight, average and two moments; keep + 1 while one is saved
)
LARGE = 2**30 // 10  # bytes of weights and moments; a network with fewer is trained on any host
BYTES_PER_PARAMETER = 20  # float32 weight, gradient, average and Adam's two moments
# Share of the speed of one large matrix product that a whole training step reaches.
EFFICIENCY = {"cuda": 0.35, "cpu": 0.25}


def assume_classes(config: AnyStageConfig) -> AnyStageConfig:
    """Return the config to count with: a classifier whose data are not there yet has 10 classes."""
    if config.kind == "classifier" and config.num_classes == 0:
        return config.model_copy(update={"num_classes": 10})
    return config


def estimate_training_cost(
    plan: Plan, device: torch.device, processes: int = 1
) -> dict[str, object]:
    """Estimate what a training costs, as one flat mapping.

    FLOPs and evaluations are those of all steps; `memory_bytes` is of one device and
    `estimated_seconds` of the whole run, by steps that were timed or reckoned (`estimated_by`).
    processes: how many share a batch.
    """
    net = build_empty_net(assume_classes(plan.stage))
    training, parameters, flops = plan.training, count_parameters(net), count_flops_per_image(net)
    precision = choose_precision(training.precision, device)
    total = FORWARD_AND_BACKWARD * flops * training.batch_size * training.steps
    rate, by = _find_rate(plan, total / training.steps, device, precision, processes)
    piece = training.batch_size // max(1, training.virtual_ranks)
    sums = max(0, training.virtual_ranks.bit_length() - 1)  # of gradients, that wait for others
    fixed = (BYTES_PER_PARAMETER + FLOAT32 * sums) * parameters
    per_image = count_activation_bytes(net) // (2 if precision == "bf16" else 1)
    micro_batch = training.micro_batch or _choose_micro_batch(piece, fixed, per_image, device)
    return {
        "parameters": parameters,
        "flops_per_image": flops,
        "steps": training.steps,
        "batch_size": training.batch_size,
        "network_evaluations": training.batch_size * training.steps,
        "training_flops": total,
        "micro_batch": micro_batch,
        "memory_bytes": fixed + per_image * micro_batch,
        "memory_bytes_per_image": per_image,
        "checkpoint_bytes": CHECKPOINT * parameters,
        "disk_bytes": ((training.keep + 1) * CHECKPOINT + 2 * FLOAT32) * parameters,
        "device": describe(device),
        "precision": precision,
        "estimated_seconds": round(training.steps / rate, 1),
        "estimated_by": by,
    }


def tell_memory(plan: Plan, device: torch.device, processes: int, report: Report) -> None:
    """Say that a step on a CPU may take more memory than is free, which the system would kill.

    On a GPU too little memory is an error, and the batch is halved. processes: all on this host.
    """
    net = build_empty_net(plan.stage)
    fixed = BYTES_PER_PARAMETER * count_parameters(net)
    if device.type == "cuda" or fixed < LARGE:
        return
    per_image, training = count_activation_bytes(net), plan.training
    share = training.batch_size // processes
    at_a_time = training.micro_batch or _choose_micro_batch(share, fixed, per_image, device)
    flag = "--set training.micro_batch="
    warn_of_memory("a step", flag, fixed, per_image, at_a_time, processes, report)


def _find_rate(
    plan: Plan, flops: float, device: torch.device, precision: Precision, processes: int
) -> tuple[float, str]:
    """Return the steps a second, of so many FLOPs in all processes, and how they are known.

    A few steps are taken on noise, unless one would take too long to wait for.
    """
    rate = processes * measure_flops(device, precision) * EFFICIENCY[device.type] / flops
    if 1 / rate > LONGEST:
        return rate, RECKONED
    share = max(plan.training.batch_size // processes, 1)
    mine = plan.training.model_copy(update={"batch_size": share})
    stage = assume_classes(plan.stage)
    with suppress(torch.OutOfMemoryError):
        timed = time_steps(
            plan.model_copy(update={"training": mine, "stage": stage}), device, precision
        )
        return (timed, TIMED) if timed else (rate, RECKONED)
    return rate, RECKONED


def _choose_micro_batch(batch_size: int, fixed: int, per_image: int, device: torch.device) -> int:
    """Halve the batch as training would, until the estimate fits into the device."""
    if device.type != "cuda":
        return min(batch_size, CPU_MICRO_BATCH)
    room = torch.cuda.get_device_properties(device).total_memory
    while batch_size > 1 and fixed + per_image * batch_size > room:
        batch_size = -(-batch_size // 2)
    return batch_size


def count_activation_bytes(net: nn.Module) -> int:
    """Return the bytes that one image's forward pass keeps for its backward pass, in float32.

    Counted on the meta device, where tensors have shapes but no storage; a tensor that
    several operations keep counts once.
    """
    kept: dict[int, Tensor] = {}
    weights = {id(parameter) for parameter in net.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in weights and tensor.is_floating_point():
            kept[id(tensor)] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net(*build_meta_inputs(net))  # pyright: ignore[reportArgumentType]
    return sum(tensor.numel() * tensor.element_size() for tensor in kept.values())
