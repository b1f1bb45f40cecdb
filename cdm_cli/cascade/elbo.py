"""A bound on how likely real images are: Eq. 1 for a stage, Eq. 3 for a cascade split at s.

Eq. 1 sums KL(q(x_{t-1} | x_t, x_0) || p_theta) over t = 2..T, the decoder -log p_theta(x_0 | x_1)
and the prior L_T. In Eq. 3 the sum of the low-resolution stage runs over t > s only, without a
decoder: its place is taken by the whole bound of the next stage given z_s ~ q(z_s | z_0).

An image's sum is estimated from one t out of each of K strata of 1..T, weighed by the size of
the stratum: without bias, and exactly summed where K is T. Terms fall roughly as 1 / t, so the
strata grow with t; t = 1 is always one of its own.

Shapes: x_0 [B, C, H, W] is clean, bytes / 127.5 - 1; what is returned is float64 [B].
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cdm_cli.cascade.chain import Chain
from cdm_cli.cascade.generate import SampleInputs, check_finite, name_noise
from cdm_cli.cascade.stage import Stage
from cdm_cli.diffusion.losses import prior_bits, vlb
from cdm_cli.diffusion.noise import Noise, draw_integers, key
from cdm_cli.diffusion.process import q_sample
from cdm_cli.diffusion.schedules import find_index
from cdm_cli.nets.memory import translate_memory_errors


class Bound(NamedTuple):
    """The parts of Eq. 1 for each image, in bits per dimension of that image."""

    prior: Tensor  # L_T
    divergences: Tensor  # t > 1, or t > s
    decoder: Tensor  # t = 1; 0 where the sum ends at s > 0

    @property
    def total(self) -> Tensor:
        """Their sum: an upper bound of -log2 p_theta(x_0) per dimension."""
        return self.prior + self.divergences + self.decoder


def cut_strata(T: int, num: int, s: int = 0) -> Tensor:
    """Cut s + 1..T into num strata: stratum k is edges[k] + 1..edges[k + 1]; int64 [num + 1].

    num 0, or T - s and more: every t alone. Sizes grow geometrically with t, and with s = 0
    the first stratum is t = 1 alone. Raises ValueError for num = 1, which leaves it no room.
    """
    if not num or num >= T - s:
        return torch.arange(s, T + 1)
    if num == 1:
        raise ValueError("one stratum cannot hold t = 1 alone and the rest as well")
    count = num + 1 if s else num
    edges = torch.linspace(math.log(max(s, 1)), math.log(T), count, dtype=torch.float64).exp()
    whole = edges.round().long()
    if not s:
        whole = torch.cat([whole.new_zeros(1), whole])
    place = torch.arange(num + 1)
    return (whole - place).cummax(0).values + place


@translate_memory_errors()
@torch.inference_mode()
def bound(
    stage: Stage,
    chain: Chain,
    x_0: Tensor,
    inputs: SampleInputs,
    *,
    seed: int,
    terms: int = 0,
    s: int = 0,
    advance: Callable[[int], None] = lambda num: None,
) -> Bound:
    """Bound -log2 p_theta(x_0 | z_s, y), or with s > 0 the part of Eq. 3 above the split at s.

    inputs: ids, and y, z_s and s' as the stage takes them. `terms` strata for each image (0:
    every t of the chain's schedule); s must be visited by the chain. The noise depends on
    (seed, stage, id, stratum) alone. `advance(B)` is called after each network evaluation. Raises
    BadInputError where the network gives what is not finite.
    """
    x_0, inputs = x_0.to(stage.device).double(), inputs.to(stage.device)
    schedule, name = chain.schedule.to(stage.device), name_noise(stage.config)
    eps_theta = stage.eps_theta(
        chain.schedule,
        inputs.y if stage.config.model.num_classes else None,
        inputs.z_s,
        inputs.s,
    )
    edges = cut_strata(schedule.T, terms, find_index(chain.schedule, s))
    sizes = edges.diff()
    lowest = edges[:-1].to(x_0.device) + 1
    times = lowest + draw_integers(key(seed, f"{name}/elbo/t"), inputs.ids, sizes)
    noise = Noise(seed, f"{name}/elbo", inputs.ids)
    decoder = divergences = x_0.new_zeros(len(x_0))
    for t, size, below in zip(times.unbind(1), sizes.tolist(), edges.tolist(), strict=False):
        x_t = q_sample(schedule, x_0, t, noise(x_0))
        term = vlb(
            schedule, x_0, x_t, t, eps_theta(x_t.float(), t).double(),
            variance=chain.variance, fraction=chain.fraction, clip=chain.clip,
        )  # fmt: skip
        if below == 0:
            decoder = term
        else:
            divergences = divergences + size * term
        advance(len(x_0))
    check_finite(stage, divergences, decoder)
    return Bound(prior_bits(schedule, x_0), divergences, decoder)


def join_bounds(bounds: Sequence[Bound], dims: Sequence[int]) -> Tensor:
    """Eq. 3: add up the stages' bounds in bits per dimension of the highest resolution; [B].

    bounds: from the lowest resolution up, all but the last split at the next stage's s. dims:
    C H W of each.
    """
    bits = [part.total * dim for part, dim in zip(bounds, dims, strict=True)]
    return torch.stack(bits).sum(0) / dims[-1]


def estimate_mean_and_error(values: Tensor) -> tuple[float, float]:
    """Return the mean over images and its standard error (0 for a single image)."""
    error = values.std(correction=1) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(values.mean()), float(error)
