"""What a sampling run will cost, told from headers: `--dry-run`."""

from collections.abc import Sequence
from contextlib import suppress

import torch

from cdm_cli.cascade.chain import Chain
from cdm_cli.cascade.checkpoint import empty_net
from cdm_cli.config import StageConfig
from cdm_cli.jobs.runtime.device import choose_precision, describe, measure_flops, pick_device
from cdm_cli.jobs.runtime.foretold import LONGEST, RECKONED, TIMED
from cdm_cli.jobs.sampling.blocks import block_size
from cdm_cli.jobs.sampling.numerics import FLOAT32, bytes_per_image, default_batch
from cdm_cli.jobs.sampling.pace import evaluations_per_second
from cdm_cli.names import Precision
from cdm_cli.nets.counting import flops_per_image, num_parameters
from cdm_cli.options.sampling import Compute

# Share of the speed of one large matrix product that a network evaluation reaches.
EFFICIENCY = {"cuda": 0.4, "cpu": 0.3}
FLOAT16 = 2


def bytes_per_sample(config: StageConfig, keep: Sequence[int] = ()) -> int:
    """Return the bytes of one sample in the store: image, label, id and kept states."""
    model = config.model
    pixels = model.channels * model.resolution**2
    return pixels * (1 + FLOAT16 * len(keep)) + 16


def estimate_cost(
    config: StageConfig, chain: Chain, num: int, compute: Compute, keep: Sequence[int] = (), *,
    evaluations: int | None = None,
) -> dict[str, object]:  # fmt: skip
    """Return parameters, FLOPs, bytes and an estimated time of num samples, all flat.

    evaluations: of the network, where not all samples are of the chain.
    """
    device = pick_device(compute.device)
    precision = choose_precision(compute.precision, device)
    net = empty_net(config)
    flops = flops_per_image(net)  # pyright: ignore[reportArgumentType]
    evaluations = num * chain.evaluations if evaluations is None else evaluations
    parameters = num_parameters(net)
    batch_size = compute.batch_size or default_batch(config, device, block_size(num))
    rate, by = network_rate(config, chain, device, precision)
    return {
        "samples": num,
        "sampler": chain.sampler,
        "steps": chain.schedule.T,
        "network_evaluations": evaluations,
        "parameters": parameters,
        "flops_per_image": flops,
        "flops": flops * evaluations,
        "bytes": num * bytes_per_sample(config, keep),
        "disk_bytes": num * bytes_per_sample(config, keep),
        "memory_bytes": FLOAT32 * parameters + batch_size * bytes_per_image(config.model),
        "batch_size": batch_size,
        "device": describe(device),
        "precision": precision,
        "estimated_seconds": float(f"{evaluations / (rate * (compute.gpus or 1)):.4g}"),
        "estimated_by": by,
    }


def network_rate(
    config: StageConfig, chain: Chain, device: torch.device, precision: Precision
) -> tuple[float, str]:
    """Return the evaluations of images a second, of one process, and how they are known.

    The network is timed, unless a batch of it would take too long to wait for.
    """
    flops = flops_per_image(empty_net(config))
    rate = measure_flops(device, precision) * EFFICIENCY[device.type] / flops
    batch_size = default_batch(config, device)
    if batch_size / rate > LONGEST:
        return rate, RECKONED
    with suppress(torch.OutOfMemoryError):
        timed = evaluations_per_second(config, chain, batch_size, device, precision)
        return (timed, TIMED) if timed else (rate, RECKONED)
    return rate, RECKONED
