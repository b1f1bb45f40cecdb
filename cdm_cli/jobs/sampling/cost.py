"""What a sampling run will cost, told from headers: `--dry-run`."""

from collections.abc import Sequence
from contextlib import suppress

import torch

from cdm_cli.cascade.chain import Chain
from cdm_cli.cascade.checkpoint import build_empty_net
from cdm_cli.config import StageConfig
from cdm_cli.jobs.runtime.device import choose_precision, describe, measure_flops, pick_device
from cdm_cli.jobs.runtime.foretold import LONGEST, RECKONED, TIMED
from cdm_cli.jobs.sampling.blocks import choose_block_size
from cdm_cli.jobs.sampling.numerics import FLOAT32, choose_batch, estimate_image_bytes
from cdm_cli.jobs.sampling.pace import time_random_network
from cdm_cli.names import Precision
from cdm_cli.nets.counting import count_flops_per_image, count_parameters
from cdm_cli.options.sampling import Compute

# Share of the speed of one large matrix product that a network evaluation reaches.
EFFICIENCY = {"cuda": 0.4, "cpu": 0.3}
FLOAT16 = 2


def count_sample_bytes(config: StageConfig, keep: Sequence[int] = ()) -> int:
    """Return the bytes of one sample in the store: image, label, id and kept states."""
    model = config.model
    pixels = model.channels * model.resolution**2
    return pixels * (1 + FLOAT16 * len(keep)) + 16


def estimate_cost(
    config: StageConfig, chain: Chain, num: int, compute: Compute, keep: Sequence[int] = (), *,
    evaluations: int | None = None,
) -> dict[str, object]:  # fmt: skip
    """Return by name the parameters, FLOPs, bytes and estimated seconds of num samples.

    evaluations: of the network for all samples, where other chains draw some of them.
    """
    device = pick_device(compute.device)
    precision = choose_precision(compute.precision, device)
    net = build_empty_net(config)
    flops = count_flops_per_image(net)  # pyright: ignore[reportArgumentType]
    evaluations = num * chain.evaluations if evaluations is None else evaluations
    parameters = count_parameters(net)
    batch_size = compute.batch_size or choose_batch(config, device, choose_block_size(num))
    rate, by = estimate_rate(config, chain, device, precision)
    return {
        "samples": num,
        "sampler": chain.sampler,
        "steps": chain.schedule.T,
        "network_evaluations": evaluations,
        "parameters": parameters,
        "flops_per_image": flops,
        "flops": flops * evaluations,
        "bytes": num * count_sample_bytes(config, keep),
        "disk_bytes": num * count_sample_bytes(config, keep),
        "memory_bytes": FLOAT32 * parameters + batch_size * estimate_image_bytes(config.model),
        "batch_size": batch_size,
        "device": describe(device),
        "precision": precision,
        "estimated_seconds": float(f"{evaluations / (rate * (compute.gpus or 1)):.4g}"),
        "estimated_by": by,
    }


def estimate_rate(
    config: StageConfig, chain: Chain, device: torch.device, precision: Precision
) -> tuple[float, str]:
    """Return the evaluations of images a second, of one process, and how they are known.

    The network is timed, unless a batch of it would take too long to wait for.
    """
    flops = count_flops_per_image(build_empty_net(config))
    rate = measure_flops(device, precision) * EFFICIENCY[device.type] / flops
    batch_size = choose_batch(config, device)
    if batch_size / rate > LONGEST:
        return rate, RECKONED
    with suppress(torch.OutOfMemoryError):
        timed = time_random_network(config, chain, batch_size, device, precision)
        return (timed, TIMED) if timed else (rate, RECKONED)
    return rate, RECKONED
