"""Why deterministic samplers fail at a super-resolution stage: what is tried, and FID of each.

    python benchmarks/deterministic_sr.py sr --s 1001 --num 2000 --features features

Real images of val are enlarged (z_s of the ground truth), so that x_0 is known. Two tables:

- what the network predicts at x_t ~ q(x_t | x_0), by t: the mean square of x_0's error, clipped
  and not, beside that of the best linear filter of z_s, which knows nothing of x_t: a conditional
  mean is never worse. excess: E (found - x_0) found, which is 0 for a conditional mean of any kind.
  colour: of the error of each image's mean colour alone, where all pixels are wrong alike.
- samples: FID against train and its error, the mean square of colour(sample) - colour(x_0), and
  the standard deviation of pixels beside that of the real ones. Each row changes one thing.

All rows share ids and noise. About two minutes of an H200 for 2000 images of 32 pixels.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from machine import machine
from torch import Tensor

from cdm_cli.cascade.conditioning import draw_non_truncated
from cdm_cli.cascade.saved import list_checkpoints
from cdm_cli.cascade.stage import Stage
from cdm_cli.cascade.stagefile import find_stage
from cdm_cli.data.pixels import from_uint8, to_uint8
from cdm_cli.data.store import open_store
from cdm_cli.diffusion.noise import Noise
from cdm_cli.diffusion.process import predict_x_0, q_sample
from cdm_cli.diffusion.reverse import split_v
from cdm_cli.diffusion.samplers import bind
from cdm_cli.diffusion.schedules import respace, trailing_times
from cdm_cli.jobs.judging.panel import Panel, open_panel
from cdm_cli.jobs.runtime.device import pick_device
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.sampling.headers import read_header
from cdm_cli.jobs.sampling.numerics import choose_numerics
from cdm_cli.jobs.sampling.ready import load_fast_stage
from cdm_cli.jobs.sampling.store_images import StoreImages, choose_part, choose_rows
from cdm_cli.metrics.collector import Collector
from cdm_cli.names import RUNS
from cdm_cli.options.judging import FeatureOptions
from cdm_cli.options.sampling import Compute, Sampling

SHARES = (1.0, 0.99, 0.975, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02)
STARTS = (0.975, 0.9, 0.7, 0.5, 0.3)


@dataclass(frozen=True)
class Images:
    """Real images in float32 on the device: x_0, z_0 as bytes, y, ids."""

    x_0: Tensor
    z_0: Tensor
    y: Tensor
    ids: Tensor

    def batches(self, size: int) -> Iterator["Images"]:
        """Yield them by `size`, the last batch filled up with its last image."""
        for start in range(0, len(self.ids), size):
            rows = torch.arange(start, start + size).clamp(max=len(self.ids) - 1)
            yield Images(self.x_0[rows], self.z_0[rows], self.y[rows], self.ids[rows])


@dataclass(frozen=True)
class Way:
    """One row: a sampler with its times, its stochasticity by the share of T, and its start.

    begin: at which share of T; from what: "noise", "real" x_0 or the "filter" of z_s, noised to
    that time. s: at which the images are noised.
    """

    name: str
    sampler: str
    steps: int
    begin: float = 1.0
    source: str = "noise"
    k: Callable[[float], float] | None = None
    clip: bool = True
    s: int | None = None
    weights: str = "ema"


@dataclass(frozen=True)
class Bench:
    """A stage with its real images, a judge, and the linear filter."""

    stage: Stage
    images: Images
    panel: Panel
    batch: int
    s: int
    seed: int

    def z_s(self, part: Images, s: int) -> Tensor:
        """Return z'_s ~ q(z_s | z_0), the same noise at every s."""
        return draw_non_truncated(self.stage.config, part.z_0, s, ids=part.ids, seed=self.seed)

    def noise(self, part: Images, what: str) -> Noise:
        """Return noise that belongs to ids and a purpose."""
        return Noise(self.seed, f"deterministic/{what}", part.ids)

    def enlarged(self, z: Tensor) -> Tensor:
        """Return z at the resolution of x_0, bilinear, as the network enlarges it."""
        side = self.stage.config.model.resolution
        return F.interpolate(z, (side, side), mode="bilinear", align_corners=False)

    def eps_theta(self, schedule: Any, part: Images, s: int) -> Any:
        """Return the network at z_s, y and s."""
        y = part.y if self.stage.config.model.num_classes else None
        return self.stage.eps_theta(schedule, y, self.z_s(part, s), torch.full_like(part.ids, s))


def patches(z: Tensor) -> Tensor:
    """Return what the filter sees at each pixel: 5 × 5 of all channels, and 1; [B, K, H W]."""
    seen = F.unfold(F.pad(z, (2, 2, 2, 2), mode="reflect"), 5)
    return torch.cat([seen, torch.ones_like(seen[:, :1])], 1)


def fitted(bench: Bench, s: int) -> Tensor:
    """Return the least-squares filter from z_s to x_0, [K, C]: the conditional mean, about."""
    xx, xy = torch.zeros(()), torch.zeros(())
    for part in bench.images.batches(bench.batch):
        seen = patches(bench.enlarged(bench.z_s(part, s))).double().transpose(0, 1).flatten(1)
        wanted = part.x_0.double().transpose(0, 1).flatten(1)
        xx, xy = xx.to(seen) + seen @ seen.T, xy.to(seen) + seen @ wanted.T
    ridge = 1e-6 * xx.diagonal().mean() * torch.eye(len(xx), device=xx.device, dtype=xx.dtype)
    return torch.linalg.solve(xx + ridge, xy).float()


def filtered(bench: Bench, part: Images, s: int, weights: Tensor) -> Tensor:
    """Return the filter's x_0, [B, C, H, W]."""
    seen = patches(bench.enlarged(bench.z_s(part, s)))
    return torch.einsum("bkp,kc->bcp", seen, weights).reshape(part.x_0.shape)


def colour(x: Tensor) -> Tensor:
    """Return the mean colour of each image, [B, C]."""
    return x.mean((2, 3))


@torch.inference_mode()
def errors(bench: Bench, s: int, weights: Tensor, num: int) -> list[dict[str, float]]:
    """Return one row for each t: mean squares over images and pixels."""
    schedule, T = bench.stage.schedule, bench.stage.schedule.T
    images = Images(*(part[:num] for part in vars(bench.images).values()))
    rows = []
    for t in sorted({max(1, round(share * T)) for share in SHARES} | {1}, reverse=True):
        sums = dict.fromkeys(
            ("eps", "raw", "clipped", "excess", "colour", "filter", "filter_colour"), 0.0
        )
        for part in images.batches(min(bench.batch, num)):
            time = torch.full_like(part.ids, t)
            eps = bench.noise(part, f"t{t}")(part.x_0)
            x_t = q_sample(schedule, part.x_0, time, eps)
            output = bench.eps_theta(schedule, part, s)(x_t, time)
            found, _ = split_v(output, x_t.shape[1])
            raw = predict_x_0(schedule, x_t.double(), time, found.double())
            x, mean = raw.clamp(-1, 1), filtered(bench, part, s, weights)
            sums["eps"] += float((found - eps).square().mean())
            sums["raw"] += float((raw - part.x_0).square().mean())
            sums["clipped"] += float((x - part.x_0).square().mean())
            sums["excess"] += float(((x - part.x_0) * x).mean())
            sums["colour"] += float(colour(x - part.x_0).square().mean())
            sums["filter"] += float((mean - part.x_0).square().mean())
            sums["filter_colour"] += float(colour(mean - part.x_0).square().mean())
        batches = -(-num // min(bench.batch, num))
        log_snr = float(schedule.alpha_bar[t].logit())
        rows.append({"t": t, "log_snr": log_snr, **{k: v / batches for k, v in sums.items()}})
    return rows


@torch.inference_mode()
def sampled(bench: Bench, way: Way, weights: Tensor) -> dict[str, Any]:
    """Sample and judge one row."""
    start = time.perf_counter()
    T, s = bench.stage.schedule.T, bench.s if way.s is None else way.s
    first = round(way.begin * T)
    times = trailing_times(first, min(way.steps, first))
    schedule = respace(bench.stage.schedule, times)
    k = None if way.k is None else [way.k(t / T) for t in reversed(times.tolist())]
    images, extractor = bench.images, bench.panel.judge.extractor
    ids, labels = images.ids.cpu().numpy(), images.y.cpu().numpy()
    collector = Collector.empty(
        ids, labels, extractor.feature_dim, device=bench.stage.device, keep=0
    )
    off, widths, done = 0.0, [], 0
    for part in images.batches(bench.batch):
        num = min(bench.batch, len(ids) - done)
        noise = bench.noise(part, "x")
        x = noise(part.x_0)
        if way.source != "noise":
            clean = part.x_0 if way.source == "real" else filtered(bench, part, s, weights)
            x = q_sample(bench.stage.schedule, clean, torch.full_like(part.ids, first), x)
        sample = bind(way.sampler, randn_like=noise, clip=way.clip, stochasticity=k)  # pyright: ignore[reportArgumentType]
        for _, x in sample(bench.eps_theta(schedule, part, s), schedule, x):  # noqa: B007, B020
            pass
        x = x[:num].clamp(-1, 1)
        features, _ = extractor(to_uint8(x))
        collector.add(np.arange(done, done + num), features, None)
        off += float(colour(x - part.x_0[:num]).square().mean(1).sum())
        widths.append(x.std((2, 3)).mean().item() / part.x_0[:num].std((2, 3)).mean().item())
        done += num
    found = collector.frechet(bench.panel.references[0].gaussian)
    return {
        "name": way.name, "steps": len(times), "s": s, "fid": found.value, "error": found.error,
        "colour": off / done, "width": float(np.mean(widths)),
        "seconds": time.perf_counter() - start,
    }  # fmt: skip


def stochastic(k: float = 1.0, above: float = -1.0, below: float = 2.0) -> Callable[[float], float]:
    """Return the stochasticity by the share of T: k within a range, 0 elsewhere."""

    def at(share: float) -> float:
        return k * (above < share <= below)

    return at


def ways(s: int, steps: int, reference: int, earlier: str | None) -> list[Way]:
    """Return the rows: the plain samplers, then each with one thing changed."""
    sde = Way(f"SDE-DPM-Solver++ {steps}", "sde-dpm-solver++", steps)
    ddim = Way(f"DDIM {steps}", "ddim", steps)
    solver = Way(f"DPM-Solver++ {steps}", "dpm-solver++", steps)
    rows = [Way(f"ancestral {reference}", "ancestral", reference), sde, ddim, solver]
    for begin in (0.99, 0.975, 0.95, 0.9, 0.8):
        rows.append(replace(solver, name=f"DPM-Solver++ from noise at {begin:g} T", begin=begin))
    for begin in STARTS:
        rows.append(_from(solver, "real", begin))
    for edge in (0.975, 0.9, 0.7, 0.4):
        above, below = stochastic(above=edge), stochastic(below=edge)
        rows.append(replace(solver, name=f"stochastic above {edge:g} T alone", k=above))
        rows.append(replace(solver, name=f"stochastic below {edge:g} T alone", k=below))
    rows += [replace(solver, name=f"stochasticity {k:g}", k=stochastic(k))
             for k in (0.1, 0.3, 0.6)]  # fmt: skip
    rows += [_from(ddim, source, 0.975) for source in ("noise", "filter", "real")]
    for other in sorted({0, s // 2} - {s}):
        rows.append(replace(sde, name=f"SDE at s = {other}", s=other))
        rows.append(replace(solver, name=f"DPM-Solver++ at s = {other}", s=other))
    if earlier:
        rows.append(replace(sde, name=f"SDE, {earlier}", weights=earlier))
        rows.append(replace(solver, name=f"DPM-Solver++, {earlier}", weights=earlier))
    rows.append(Way(f"DPM-Solver++ {4 * steps}", "dpm-solver++", 4 * steps))
    rows.append(replace(solver, name="DPM-Solver++, not clipped", clip=False))
    return rows


def _from(way: Way, source: str, begin: float) -> Way:
    name = f"{way.name} from {source} at {begin:g} T"
    return replace(way, name=name, begin=begin, source=source)


def opened(
    arguments: argparse.Namespace, weights: str, stack: ExitStack, panel: Panel | None
) -> Bench:
    """Load stage, images and judge."""
    device = pick_device(arguments.device)
    header = read_header(find_stage(arguments.stage, Path(RUNS)))
    config = header.config
    store = stack.enter_context(open_store(arguments.ref))
    _, part = choose_part(store, None)
    rows = choose_rows(store, part, min(arguments.num, part.num))
    high, low = (StoreImages(part, side, rows)
                 for side in (config.model.resolution, header.conditioning.resolution))  # fmt: skip
    every = range(len(rows))
    images = Images(
        from_uint8(high.take_images(every)).to(device), low.take_images(every).to(device),
        torch.from_numpy(high.take_labels(every)).to(device),
        torch.from_numpy(high.take_ids(every)).to(device),
    )  # fmt: skip
    compute = Compute(device=arguments.device, compile=False, batch_size=arguments.batch_size)
    session = Session(device, compute)
    chosen = choose_numerics(config, session, 0, None, len(rows))
    stage = load_fast_stage(header, Sampling(weights=weights), chosen, session)
    if panel is None:
        ref = Path(arguments.ref)
        judge = FeatureOptions(features=arguments.features, ref=ref, compute=compute)
        panel = open_panel(judge, config.model.resolution, session, features=False)
    return Bench(stage, images, panel, chosen.batch_size, arguments.s, 0)


def show_errors(rows: list[dict[str, float]]) -> None:
    """Print the first table."""
    names = ("t", "log_snr", "eps", "raw", "clipped", "filter", "excess", "colour", "filter_colour")
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in rows:
        print("| " + " | ".join(f"{row[name]:.4g}" for name in names) + " |")
    print("| row | steps | FID train | ± | colour² | width | s |\n|" + "---|" * 7, flush=True)


def main() -> None:
    """Print both tables as they are made, and write them as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage")
    parser.add_argument("--s", type=int, required=True)
    parser.add_argument("--ref", default="data.h5")
    parser.add_argument("--num", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--reference", type=int, default=100)
    parser.add_argument("--features", default="features")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("-o", "--out", default="deterministic.json")
    arguments = parser.parse_args()
    saved = [path.name for path in list_checkpoints(find_stage(arguments.stage, Path(RUNS)))]
    earlier = min(saved) if len(saved) > 1 else None
    with ExitStack() as stack:
        bench = opened(arguments, "ema", stack, None)
        weights = fitted(bench, bench.s)
        found: dict[str, Any] = {"machine": machine(), **vars(arguments), "samples": []}
        found["errors"] = errors(bench, bench.s, weights, min(512, len(bench.images.ids)))
        show_errors(found["errors"])
        for way in ways(bench.s, arguments.steps, arguments.reference, earlier):
            if way.weights != "ema":
                bench = opened(arguments, way.weights, stack, bench.panel)
            here = weights if way.s is None else fitted(bench, way.s)
            row = sampled(bench, way, here)
            print("| {name} | {steps} | {fid:.3f} | {error:.3f} | {colour:.5f} | {width:.3f} "
                  "| {seconds:.1f} |".format(**row), flush=True)  # fmt: skip
            found["samples"].append(row)
            Path(arguments.out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
