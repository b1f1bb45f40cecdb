"""Samplers beside those of Hugging Face diffusers, on the same eps function and the same times.

    pip install diffusers && python benchmarks/peer_diffusers.py

Prints, for each sampler, the largest difference over all states x_t on the way down, relative
to the largest value of that state. Twice: with the peer as shipped, whose tables are float32,
and with its tables replaced by our float64 ones, which leaves the algorithms alone to differ.
(Its DPM-Solver++ rounds every state to float32 in either case.) Ends with status 1 if any row
of the second kind is above its bound.
"""

import platform
import sys
from collections.abc import Callable, Iterator
from itertools import product

import diffusers  # pyright: ignore[reportMissingImports]
import torch
from torch import Tensor

from cdm_cli.diffusion.samplers import ancestral, ddim, dpm_solver_pp
from cdm_cli.diffusion.schedules import (
    Schedule,
    cosine,
    linear,
    respace,
    space_times,
    spread_schedule,
)

T = 1000
SCHEDULES = {"linear": linear(T), "cosine": cosine(T)}
FLOAT32, FLOAT64 = 1e-4, 1e-9  # cosine divides float32's rounding of x_T by 5e-5
Network = Callable[[Tensor, int], Tensor]


def network(schedule: Schedule, channels: int = 3) -> Network:
    """Return eps and v as a smooth function of (x_t, t), whose x_0 lies within (-1.1, 1.1)."""
    weight = torch.randn(2 * channels, channels, 3, 3, dtype=torch.float64) / 3

    def eps_and_v(x_t: Tensor, t: int) -> Tensor:
        out = torch.nn.functional.conv2d(x_t.double(), weight, padding=1).tanh()
        alpha_bar = schedule.alpha_bar[t]
        eps = (x_t - alpha_bar.sqrt() * 1.1 * out[:, :channels]) / (1 - alpha_bar).sqrt()
        return torch.cat([eps, out[:, channels:]], 1)

    return eps_and_v


def on(schedule: Schedule, net: Network, channels: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Adapt the network, which knows original times, to indices of a respaced schedule."""
    return lambda x_t, t: net(x_t, int(schedule.times[int(t[0])]))[:, :channels]


def peer_states(
    peer: object, net: Network, x_T: Tensor, channels: int, **step: object
) -> Iterator[Tensor]:
    """Run a diffusers scheduler down its timesteps, which are ours less one."""
    x_t = x_T
    for timestep in peer.timesteps:  # pyright: ignore
        output = net(x_t, int(timestep) + 1)[:, :channels]
        x_t = peer.step(output, int(timestep), x_t, **step).prev_sample  # pyright: ignore
        yield x_t


def difference(ours: Iterator[tuple[int, Tensor]], theirs: Iterator[Tensor]) -> float:
    """Return the largest relative difference of any state."""
    return max(
        ((a - b).abs().max() / b.abs().max()).item() for (_, a), b in zip(ours, theirs, strict=True)
    )


def noise(seed: int) -> torch.Generator:
    """Return a generator; both sides draw x_t-shaped noise from one of the same seed."""
    return torch.Generator().manual_seed(seed)


def made(name: str, schedule: Schedule, exact: bool, **config: object):
    """Build a diffusers scheduler with our betas; exact: with our alpha_bar in float64."""
    betas = schedule.beta[1:].numpy()
    peer = getattr(diffusers, name)(num_train_timesteps=T, trained_betas=betas, **config)
    if exact:
        peer.alphas_cumprod = schedule.alpha_bar[1:].clone()
    return peer


def compare_ddpm(name: str, exact: bool, variance: str, steps: int) -> float:
    """Ancestral sampling beside DDPMScheduler, x_0 clipped, on respaced times."""
    schedule = SCHEDULES[name]
    short, net = respace(schedule, space_times(T, steps)), network(schedule)
    theirs = {"small": "fixed_small", "large": "fixed_large", "learned": "learned_range"}[variance]
    peer = made("DDPMScheduler", schedule, exact, variance_type=theirs, clip_sample=True)
    peer.set_timesteps(timesteps=[t - 1 for t in reversed(short.times[1:].tolist())])
    x_T, channels = torch.randn(2, 3, 8, 8, dtype=torch.float64), 6 if variance == "learned" else 3
    draws = noise(1)
    ours = ancestral(
        on(short, net, channels), short, x_T, variance=variance,  # pyright: ignore
        randn_like=lambda x: torch.randn(x.shape, generator=draws, dtype=x.dtype),
    )  # fmt: skip
    return difference(ours, peer_states(peer, net, x_T, channels, generator=noise(1)))


def stochasticity_of(eta: float, schedule: Schedule) -> Tensor:
    """Return the stochasticity [T + 1] whose steps draw as much as those of DDIM's eta."""
    lambda_ = schedule.alpha_bar.logit() / 2
    h = lambda_[:-1] - lambda_[1:]
    k = -torch.log1p(eta**2 * torch.expm1(-2 * h)) / (2 * h)
    return torch.cat([k.new_zeros(1), k.nan_to_num(0.0).clamp(max=1)])


def compare_ddim(name: str, exact: bool, eta: float, steps: int) -> float:
    """DDIM beside DDIMScheduler, x_0 clipped and eps solved again from it."""
    schedule = SCHEDULES[name]
    short, net = respace(schedule, torch.arange(T // steps, T + 1, T // steps)), network(schedule)
    peer = made("DDIMScheduler", schedule, exact, clip_sample=True, timestep_spacing="trailing")
    peer.set_timesteps(steps)
    x_T, draws = torch.randn(2, 3, 8, 8, dtype=torch.float64), noise(1)
    ours = ddim(
        on(short, net, 3), short, x_T, stochasticity=stochasticity_of(eta, short),
        randn_like=lambda x: torch.randn(x.shape, generator=draws, dtype=x.dtype),
    )  # fmt: skip
    step = {"eta": eta, "use_clipped_model_output": True, "generator": noise(1)}
    return difference(ours, peer_states(peer, net, x_T, 3, **step))


def compare_dpm_solver(name: str, exact: bool, kind: str, steps: int) -> float:
    """(SDE-)DPM-Solver++(2M) beside DPMSolverMultistepScheduler (order 2, midpoint), not clipped.

    The peer draws noise in float32.
    """
    schedule = SCHEDULES[name]
    short, net = spread_schedule(schedule, steps, sampler="dpm-solver++"), network(schedule)
    theirs = {"algorithm_type": kind, "final_sigmas_type": "zero"}
    peer = made("DPMSolverMultistepScheduler", schedule, exact, **theirs)
    peer.set_timesteps(timesteps=[t - 1 for t in reversed(short.times[1:].tolist())])
    x_T, draws = torch.randn(2, 3, 8, 8, dtype=torch.float64), noise(1)

    def randn_like(x: torch.Tensor) -> torch.Tensor:
        return torch.randn(x.shape, generator=draws).to(x)

    source = randn_like if kind.startswith("sde") else None
    ours = dpm_solver_pp(on(short, net, 3), short, x_T, randn_like=source, clip=False)
    return difference(ours, peer_states(peer, net, x_T, 3, generator=noise(1)))


def rows() -> Iterator[tuple[str, Callable[[bool], float], float]]:
    """Yield (name, comparison, bound) of every row."""
    for name in SCHEDULES:
        for variance in ("small", "large", "learned"):
            yield (
                f"{name}, ancestral, {variance} variance, 100 steps",
                lambda exact, n=name, v=variance: compare_ddpm(n, exact, v, 100),
                FLOAT64,
            )
        for eta in (0.0, 0.5, 1.0):
            yield (
                f"{name}, DDIM, eta {eta}, 50 steps",
                lambda exact, n=name, e=eta: compare_ddim(n, exact, e, 50),
                FLOAT64,
            )
        for kind, steps in product(("dpmsolver++", "sde-dpmsolver++"), (10, 25, 100)):
            yield (
                f"{name}, {kind} (2M), {steps} steps",
                lambda exact, n=name, a=kind, k=steps: compare_dpm_solver(n, exact, a, k),
                FLOAT32,
            )


def main() -> int:
    """Print every row; return 1 if a bound is broken."""
    machine = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    versions = f"torch {torch.__version__}, diffusers {diffusers.__version__}"
    print(f"{machine}, Python {platform.python_version()}, {versions}")
    print(f"{'largest relative difference of any x_t':48s} {'as shipped':>12s} {'our tables':>12s}")
    broken = False
    for name, compare, bound in rows():
        torch.manual_seed(0)
        shipped, exact = compare(False), compare(True)
        broken |= exact > bound
        mark = f"  above {bound:g}" if exact > bound else ""
        print(f"{name:48s} {shipped:12.1e} {exact:12.1e}{mark}")
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
