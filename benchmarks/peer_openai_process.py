"""Schedules, processes and losses beside the two openai packages: the part of `peer_openai.py`
that needs no network.

Images are random bytes, eps_theta is the true noise with an error, v is random, and t holds
1, 2, T - 1, T and sixty random times.
"""

from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cdm_cli.diffusion import losses
from cdm_cli.diffusion.process import q_posterior, q_sample
from cdm_cli.diffusion.reverse import p_mean_log_var
from cdm_cli.diffusion.schedules import Schedule, cosine, linear

GUIDED, IMPROVED = "guided_diffusion", "improved_diffusion"
FLOAT64, FLOAT32 = 1e-12, 1e-6
CANCELS = 3e-4  # float32, where a KL is a small difference of larger numbers
TANH = 1e-2  # their approximation of the distribution function
KINDS = ("learned", "small", "large")
failed: list[str] = []


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference over the largest value of the peer."""
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())


def row(what: str, value: float, bound: float, note: str = "") -> None:
    """Print one line of the table, and remember it where it is above its bound."""
    if not value <= bound:
        failed.append(what)
        note += " ABOVE ITS BOUND"
    print(f"  {what:58s} {value:9.1e}  {note}", flush=True)


class Draws(NamedTuple):
    """Everything that both sides are given."""

    x_0: Tensor
    x_t: Tensor
    t: Tensor
    eps: Tensor
    eps_theta: Tensor
    v: Tensor

    def output(self, kind: str) -> Tensor:
        """Return the raw output of a network with this kind of variance."""
        return torch.cat([self.eps_theta, self.v], 1) if kind == "learned" else self.eps_theta


def draws_of(peer: Any, T: int) -> Draws:
    """Draw images, noise, an imperfect prediction of it, and times."""
    t = torch.cat([torch.tensor([1, 2, T - 1, T]), torch.randint(1, T + 1, (60,))])
    x_0 = torch.randint(0, 256, (len(t), 3, 8, 8)) / 127.5 - 1
    eps, v, error = torch.randn(3, *x_0.shape)
    return Draws(x_0, peer.q_sample(x_0, t - 1, eps), t, eps, eps + 0.1 * error, v)


def diffusion_of(package: str, name: str, T: int, kind: str, **said: Any) -> Any:
    """Build the peer's process; kind is our name of the variance."""
    gd, respace = (import_module(f"{package}.{m}") for m in ("gaussian_diffusion", "respace"))
    variance = {"learned": "LEARNED_RANGE", "small": "FIXED_SMALL", "large": "FIXED_LARGE"}[kind]
    return respace.SpacedDiffusion(
        use_timesteps=respace.space_timesteps(T, said.pop("respacing", [T])),
        betas=gd.get_named_beta_schedule(name, T),
        model_mean_type=gd.ModelMeanType.EPSILON,
        model_var_type=gd.ModelVarType[variance],
        loss_type=gd.LossType[said.pop("loss", "MSE")],
    )


def schedule_of(name: str, T: int) -> Schedule:
    """Return our schedule of that name."""
    return cosine(T) if name == "cosine" else linear(T)


def compare_process(package: str, name: str, T: int) -> None:
    """Compare tables, q_sample, posterior, variances and every kind of VLB term."""
    print(f"{package}: {name}, T = {T}")
    peer, ours = diffusion_of(package, name, T, "learned"), schedule_of(name, T)
    compare_tables(peer, ours)
    draws = draws_of(peer, T)
    x_0, x_t, t = draws.x_0, draws.x_t, draws.t
    row("q_sample", difference(q_sample(ours, x_0, t, draws.eps), x_t), FLOAT32)
    mean, _, log_var = peer.q_posterior_mean_variance(x_0, x_t, t - 1)
    posterior = q_posterior(ours, x_0, x_t, t)
    row("q_posterior: mean", difference(posterior.mean, mean), FLOAT32)
    row("q_posterior: log variance", difference(posterior.log_var, log_var[:, :1, :1, :1]), FLOAT32)
    prior = peer._prior_bpd(x_0)
    row("L_T, bits/dim", difference(losses.prior_bits(ours, x_0), prior), CANCELS)
    for kind in KINDS:
        for clip in (True, False):
            compare_reverse(diffusion_of(package, name, T, kind), ours, kind, draws, clip)
    compare_hybrid(package, name, ours, draws)


def compare_tables(peer: Any, ours: Schedule) -> None:
    """Compare the float64 tables over t = 1..T."""
    pairs = {
        "alpha_bar": (ours.alpha_bar, peer.alphas_cumprod),
        "beta": (ours.beta, peer.betas),
        "log beta_tilde, clipped at t = 1": (
            ours.log_beta_tilde,
            peer.posterior_log_variance_clipped,
        ),
    }
    for name, (table, theirs) in pairs.items():
        row(f"{name} (float64)", difference(table[1:], torch.from_numpy(theirs)), FLOAT64)


def compare_reverse(peer: Any, ours: Schedule, kind: Any, draws: Draws, clip: bool) -> None:
    """Compare mu_theta, Sigma_theta and the VLB terms of one kind of variance."""
    said = f"{kind}, {'clipped' if clip else 'unclipped'}"
    output, x_t, t = draws.output(kind), draws.x_t, draws.t
    theirs = peer.p_mean_variance(lambda *_, **__: output, x_t, t - 1, clip_denoised=clip)
    mine = p_mean_log_var(ours, x_t, t, output, variance=kind, clip=clip)
    row(f"mu_theta ({said})", difference(mine.mean, theirs["mean"]), FLOAT32)
    log_var = mine.log_var.expand_as(x_t)
    row(f"log Sigma_theta ({said})", difference(log_var, theirs["log_variance"]), FLOAT32)
    vlb, bits = vlb_of(peer, ours, kind, draws, clip)
    exact = losses.vlb(
        ours, draws.x_0.double(), x_t.double(), t, output.double(), variance=kind, clip=clip
    )
    late, first = t > 1, t == 1
    note = f"off float64: ours {difference(vlb[late], exact[late]):.0e}, "
    note += f"theirs {difference(bits[late], exact[late]):.0e}"
    row(f"L_{{t-1}}, t > 1, bits/dim ({said})", difference(vlb[late], bits[late]), CANCELS, note)
    row(f"L_0, bits/dim ({said})", difference(vlb[first], bits[first]), FLOAT32)


def vlb_of(peer: Any, ours: Schedule, kind: Any, draws: Draws, clip: bool) -> tuple[Tensor, Tensor]:
    """Return the VLB terms of both sides, bits/dim [B]."""
    output = draws.output(kind)
    bits = peer._vb_terms_bpd(lambda *_, **__: output, draws.x_0, draws.x_t, draws.t - 1, clip)[
        "output"
    ]
    mine = losses.vlb(ours, draws.x_0, draws.x_t, draws.t, output, variance=kind, clip=clip)
    return mine, bits


def compare_hybrid(package: str, name: str, ours: Schedule, draws: Draws) -> None:
    """Compare L_hybrid with each of the two weights in use: T / 1000 and 1 per term."""
    output = draws.output("learned")
    for loss, weight in (("RESCALED_MSE", 0.001), ("MSE", 1 / ours.T)):
        peer = diffusion_of(package, name, ours.T, "learned", loss=loss)
        terms = peer.training_losses(
            lambda *_, **__: output, draws.x_0, draws.t - 1, noise=draws.eps
        )
        mine = losses.hybrid(
            ours, draws.x_0, draws.x_t, draws.t, draws.eps, output, vlb_weight=weight
        )
        row(f"L_hybrid, {loss}", difference(mine, terms["loss"]), FLOAT32)


def compare_decoder(packages: tuple[str, ...]) -> None:
    """Compare L_0 with the peers as shipped: they approximate the distribution function by tanh."""
    print("L_0 beside the peers as shipped, whose distribution function is approximated by tanh")
    for package in packages:
        peer, ours = diffusion_of(package, "cosine", 4000, "learned"), schedule_of("cosine", 4000)
        draws = draws_of(peer, 4000)
        t = torch.ones_like(draws.t)
        draws = draws._replace(t=t, x_t=q_sample(ours, draws.x_0, t, draws.eps))
        mine, theirs = vlb_of(peer, ours, "learned", draws, True)
        row(f"{package}: cosine, T = 4000", difference(mine, theirs), TANH)


def use_exact_cdf(packages: tuple[str, ...]) -> None:
    """Give the peers the exact distribution function, so that the rest of L_0 can be compared."""
    for package in packages:
        losses: Any = import_module(f"{package}.losses")
        losses.approx_standard_normal_cdf = torch.special.ndtr
