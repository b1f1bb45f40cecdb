"""Network evaluations and training steps per second at the Appendix B presets, beside the peer.

    python benchmarks/network_speed.py --guided PATH/guided-diffusion [--preset imagenet-base32]

The peer is openai/guided-diffusion, from a clone, as shipped (fp16 trunk for sampling and for
training). Both sides run the same shapes in one process; the rate of a bf16 matrix product is
measured in the same run and is the limit that both are compared with, on a GPU that was idle
before ("of limit") and on one that has multiplied for seconds ("of held"). A training step is the
whole of it: loss, gradients and their norm, Adam and the average. Sides: kernels launched one by
one, replayed as one CUDA graph, also compiled; the peer.
"""

import argparse
import gc
import itertools
import sys
import time
import types
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar
from unittest.mock import patch

import torch
import torch.nn.functional as F
from machine import machine
from torch import Tensor, nn

from cdm_cli.cascade.fast import compile_net, make_fast
from cdm_cli.cascade.stage import Stage, build_net
from cdm_cli.config import StageConfig
from cdm_cli.data.batches import TrainBatch
from cdm_cli.jobs.runtime.device import make_deterministic
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.training.objective import StageObjective
from cdm_cli.jobs.training.step import Trainer
from cdm_cli.nets.counting import count_flops_per_image
from cdm_cli.plans import TrainingConfig
from cdm_cli.presets import preset

Net = TypeVar("Net", bound=nn.Module)
BATCH = {8: 512, 16: 512, 32: 256, 64: 128, 128: 32, 256: 16}
CALLS = 4
HELD = 3.0  # seconds of matrix products after which their rate no longer falls
Limits = tuple[float, float]  # FLOP/s of matrix products: at once, and held
SIDES = ["launched", "replayed", "compiled", "peer"]


def seconds_per_call(call: Callable[[], object], repeats: int = 5) -> float:
    """Return the median time of a call among CALLS that follow each other, as steps do."""
    for _ in range(2):
        call()
    times: list[float] = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(CALLS):
            call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1000 / CALLS)
    return sorted(times)[len(times) // 2]


def matrix_rate(before: float, size: int = 8192) -> float:
    """Return FLOP/s of a bf16 matrix product of random operands.

    before: seconds of the same products that come first. A GPU that was idle runs at a clock that
    its power does not allow for long.
    """
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    until = time.perf_counter() + before
    while time.perf_counter() < until:
        seconds_per_call(lambda: a @ b, 10)
    return 2 * size**3 / seconds_per_call(lambda: a @ b, 10)


def inputs(config: StageConfig, batch: int) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    """Draw x_t, t, z_s, s and y."""
    model = config.model
    x_t = torch.randn(batch, model.channels, model.resolution, model.resolution, device="cuda")
    t = torch.randint(1, config.schedule.T + 1, (batch,), device="cuda").float()
    z_s = None
    if config.conditioning:
        low = config.conditioning.resolution
        z_s = torch.randn(batch, model.channels, low, low, device="cuda")
    s = torch.randint(0, 1000, (batch,), device="cuda").float()
    return x_t, t, z_s, s, torch.randint(0, model.num_classes, (batch,), device="cuda")


def uint8_batch(config: StageConfig, batch: int) -> TrainBatch:
    """Draw a training batch on the GPU."""
    model, conditioning = config.model, config.conditioning
    sides = [model.resolution, conditioning.resolution if conditioning else 0]
    x_0, z_0 = (
        torch.randint(0, 256, (batch, model.channels, side, side), device="cuda").byte()
        for side in sides
    )
    y = torch.randint(0, model.num_classes, (batch,), device="cuda")
    return TrainBatch(x_0, z_0 if conditioning else None, y)


def randomised(net: Net) -> Net:
    """Fill every zero-initialised weight, so that nothing is timed on zeros."""
    for parameter in net.parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.01)
    return net


def ours(config: StageConfig) -> Stage:
    """Build a stage of random weights on the GPU."""
    with torch.device("cuda"):
        net = randomised(build_net(config))
    return Stage(config, (), net.eval()).to("cuda")


@contextmanager
def as_cdm_runs() -> Generator[None]:
    """Choose kernels as every command does, and give the peer its own choice back."""
    cudnn: Any = torch.backends.cudnn
    before, precision = cudnn.deterministic, torch.get_float32_matmul_precision()
    make_deterministic(torch.device("cuda"))
    try:
        yield
    finally:
        cudnn.deterministic = before
        torch.set_float32_matmul_precision(precision)


def launched(recorded: bool) -> AbstractContextManager[object]:
    """Launch kernels one by one, unless they are to be recorded."""
    if recorded:
        return nullcontext()
    name = "cdm_cli.nets.kernels.recorded.record_if_it_fits"
    return patch(name, lambda function, inputs: function)


def sampling_call(
    config: StageConfig, batch: int, *, compiled: bool, recorded: bool = True
) -> Callable[[], Tensor]:
    """One network evaluation exactly as `cdm sample` runs it."""
    stage = make_fast(ours(config), compiled=compiled)
    with torch.inference_mode():
        x_t, _, z_s, s, y = inputs(config, batch)
    eps_theta = stage.eps_theta(stage.schedule, y, z_s, s.long())
    t = torch.full((batch,), 500, device="cuda")

    def call() -> Tensor:
        with as_cdm_runs(), launched(recorded), torch.inference_mode():
            return eps_theta(x_t, t)

    return call


def training_call(
    config: StageConfig, batch: int, *, compiled: bool, recorded: bool = True
) -> Callable[[], None]:
    """One step exactly as `cdm train` takes it: bf16 autocast, float32 weights."""
    stage = ours(config)
    if compiled:
        compile_net(stage.net)
    training = TrainingConfig(batch_size=batch, lr=1e-4, keyed_by="place")
    device, objective = torch.device("cuda"), StageObjective(stage, training)
    trainer = Trainer(objective, training, Session(device), cosine=False)
    images, steps = uint8_batch(config, batch), itertools.count(1)

    def call() -> None:
        with as_cdm_runs(), launched(recorded):
            trainer.step(next(steps), images)

    return call


def peer_net(config: StageConfig, path: str) -> nn.Module:
    """Build the peer's network of the same shape, its trunk in fp16."""
    sys.path.insert(0, path)
    sys.modules.setdefault("blobfile", types.ModuleType("blobfile"))
    from guided_diffusion.unet import UNetModel  # pyright: ignore[reportMissingImports]

    model = config.model
    with torch.device("cuda"):
        net = UNetModel(
            image_size=model.resolution,
            in_channels=model.channels * (2 if config.conditioning else 1),
            model_channels=model.base_channels,
            out_channels=model.channels * (2 if config.variance == "learned" else 1),
            num_res_blocks=model.num_res_blocks,
            attention_resolutions=[model.resolution // r for r in model.attention_resolutions],
            dropout=model.dropout,
            channel_mult=model.channel_mult,
            num_classes=model.num_classes,
            use_fp16=True,
            num_heads=model.num_heads,
            use_scale_shift_norm=model.scale_shift,
            resblock_updown=model.resblock_updown,
        )
    randomised(net).convert_to_fp16()  # pyright: ignore[reportCallIssue]
    return net


def peer_call(config: StageConfig, batch: int, path: str, *, train: bool) -> Callable[[], object]:
    """The peer's evaluation or training step (fp16 trunk, float32 master weights, AdamW, average).

    Its many small operations on weights are joined here, in its favour.
    """
    net = peer_net(config, path)
    x_t, t, z_s, _, y = inputs(config, batch)
    if z_s is not None:
        x_t = torch.cat([x_t, F.interpolate(z_s, x_t.shape[-2:], mode="bilinear")], dim=1)
    if not train:
        net.eval()
        return lambda: torch.no_grad()(net)(x_t, t, y)
    net.train()
    weights: list[Tensor] = list(net.parameters())
    master = [p.detach().float().clone().requires_grad_() for p in weights]
    average = [m.detach().clone() for m in master]
    adam = torch.optim.AdamW(master, 1e-4, weight_decay=0.0, fused=True)

    def call() -> None:
        (net(x_t, t, y).float().square().mean() * 1024).backward()
        for p, m in zip(weights, master, strict=True):
            m.grad = None if p.grad is None else p.grad.float() / 1024
            p.grad = None
        torch.nn.utils.get_total_norm([m.grad for m in master if m.grad is not None])
        adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, master, 1e-4)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_copy_(weights, master)  # pyright: ignore[reportPrivateImportUsage]

    return call


def row(name: str, flops: int, batch: int, call: Callable[[], object], limits: Limits) -> float:
    """Time one call and print its row; return images per second."""
    rate = batch / seconds_per_call(call)
    achieved = rate * flops
    shares = " ".join(f"{achieved / limit:8.1%}" for limit in limits)
    peak = torch.cuda.max_memory_allocated() / 2**30
    print(f"{name:30s} {rate:9.1f} {achieved / 1e12:9.1f} {shares} {peak:7.1f}", flush=True)
    return rate


def print_profile(call: Callable[[], object], lines: int = 30) -> None:
    """Print where the time of one call goes, kernel by kernel."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    print(profile.key_averages().table(sort_by="cuda_time_total", row_limit=lines,
                                       max_name_column_width=90))  # fmt: skip


def compare(name: str, limits: Limits, arguments: argparse.Namespace) -> None:
    """Print every row of one preset, and the ratio of ours to the peer's."""
    guided = arguments.guided
    config = preset(name).stage
    assert isinstance(config, StageConfig)
    with torch.device("meta"):
        forward = count_flops_per_image(build_net(config))
    print(f"\n{name}: {forward / 1e9:.0f} GFLOPs forward per image")
    print(f"{'':30s} {'images/s':>9s} {'TFLOP/s':>9s} {'of limit':>8s} {'of held':>8s} {'GiB':>7s}")
    for mode in arguments.mode or ["sample", "train"]:
        train = mode == "train"
        flops = forward * 3 if train else forward
        batch = arguments.batch or BATCH[config.model.resolution]
        build = training_call if train else sampling_call
        makers: dict[str, Callable[[], Callable[[], object]]] = {
            "launched": partial(build, config, batch, compiled=False, recorded=False),
            "replayed": partial(build, config, batch, compiled=False),
            "compiled": partial(build, config, batch, compiled=True),
        }
        if guided:
            makers["peer"] = partial(peer_call, config, batch, guided, train=train)
        rates: dict[str, float] = {}
        for side in arguments.side or makers:
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            call = makers[side]()
            rates[side] = row(f"{mode}, batch {batch}: {side}", flops, batch, call, limits)
            if arguments.profile and side == "compiled":
                print_profile(call)
            del call
        if {"compiled", "peer"} <= set(rates):
            print(f"ratio to the peer: {rates['compiled'] / rates['peer']:.2f}")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guided", help="clone of openai/guided-diffusion")
    parser.add_argument("--preset", action="append", default=[])
    parser.add_argument("--mode", action="append", choices=["sample", "train"], default=[])
    parser.add_argument("--side", action="append", choices=SIDES, help="of the four, these alone")
    parser.add_argument("--batch", type=int, help="instead of one that suits an Appendix B preset")
    parser.add_argument("--profile", action="store_true", help="kernels of the compiled side")
    arguments = parser.parse_args()
    if "peer" in (arguments.side or []) and not arguments.guided:
        parser.error("the peer is run from its clone: --guided PATH")
    torch.manual_seed(0)
    limits = matrix_rate(0), matrix_rate(HELD)
    fast, held = (rate / 1e12 for rate in limits)
    print(f"{machine()}; bf16 matrix product {fast:.0f} TFLOP/s, held {held:.0f}")
    for name in arguments.preset or ["imagenet-base32"]:
        compare(name, limits, arguments)


if __name__ == "__main__":
    main()
