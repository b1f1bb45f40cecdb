"""How fast this device evaluates a network, timed by sampling with it for a moment."""

import time
from collections.abc import Callable, Iterable

import torch

from cdm_cli.cascade.chain import Chain
from cdm_cli.cascade.fast import make_fast
from cdm_cli.cascade.generate import SampleInputs, walk
from cdm_cli.cascade.stage import Stage, build_net
from cdm_cli.config import StageConfig
from cdm_cli.jobs.runtime.device import keep_seeds, wait
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.sampling.fill import Engine, Meter
from cdm_cli.jobs.sampling.ready import ReadyStage
from cdm_cli.jobs.sampling.work import Work
from cdm_cli.names import Precision

SECONDS = 0.3  # of timing
WARM = 4  # first steps that choose kernels, and record them


@torch.inference_mode()
def time_random_network(
    config: StageConfig, chain: Chain, batch_size: int, device: torch.device, precision: Precision
) -> float | None:
    """Return how many images a network with random weights evaluates a second.

    None where the chain has too few steps to time one.
    """
    with keep_seeds(device):
        stage = Stage(config, (), build_net(config), precision=precision).to(device)
    stage = make_fast(stage, compiled=False)
    steps = walk(stage, chain, _make_inputs(config, batch_size).to(device), 0)
    rate = measure_pace(steps, min(WARM, chain.evaluations), lambda: wait(device))
    return rate and rate * batch_size


def _make_inputs(config: StageConfig, num: int) -> SampleInputs:
    model, conditioning = config.model, config.conditioning
    y = torch.arange(num) % model.num_classes if model.num_classes else None
    ids = torch.arange(num)
    if conditioning is None:
        return SampleInputs(ids, y)
    z_s = torch.zeros(num, model.channels, conditioning.resolution, conditioning.resolution)
    return SampleInputs(
        ids, y, z_s, torch.zeros(num, dtype=torch.int64) if conditioning.gaussian else None
    )


def measure_pace(steps: Iterable[object], warm: int, wait: Callable[[], None]) -> float | None:
    """Return how many of the steps are taken a second, after `warm` and one; None if no more."""
    start, count = 0.0, -warm - 1
    for _ in steps:
        count += 1
        if count < 0:
            continue
        wait()
        if count == 0:
            start = time.perf_counter()
        elif time.perf_counter() - start >= SECONDS:
            break
    return count / (time.perf_counter() - start) if count > 0 else None


def measure_rate(work: Work, ready: ReadyStage) -> float:
    """Make a batch of a work twice; return the evaluations of images a second of the second one.

    The first one compiles, records and warms up. Nothing is written. Raises MemoryFloorError where
    the batch does not fit into the device, and StoppedError when asked to stop.
    """
    engine = Engine.of(work, ready)
    inputs = work.make_inputs(range(min(len(work.samples), engine.batch_size)))
    with Stop() as stop:
        meter = Meter(lambda count, note: None, stop, len(inputs.ids), lambda: "nothing was made")
        engine.make_block(inputs, meter)
        start = time.monotonic()
        engine.make_block(inputs, meter)
    return len(inputs.ids) * engine.chain.evaluations / (time.monotonic() - start)
