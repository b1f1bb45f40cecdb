"""Where the next linear schedule of few steps is looked for (Section 4.4).

A linear schedule of N steps has two numbers, beta_1 and beta_N. They are searched as beta_1
and alpha_bar_N, both on a logarithmic scale, which beta_N follows from: so no trial is spent on
schedules that end far from noise, and the same box serves 4 steps and 100. The box is bounded

- below in beta_1 by (2 / 255)^2: noise of less than one grey level changes nothing;
- above in beta_1 by the constant schedule, so that beta never decreases;
- below in alpha_bar_N by that of training: less signal than that, the network never saw;
- above in alpha_bar_N by 0.3, as sampling starts from noise without any signal.

The first half of the trials spreads over the box by a Halton sequence, the second half is drawn
from ever smaller boxes around the best so far. The first and the last of these are the best
itself with the other fixed variance: as all trials share their noise, that pair differs in
nothing else. Each place follows from the seed, its number and the scores before it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cdm_cli.diffusion.schedules import linear
from cdm_cli.metrics.order import hash_ids
from cdm_cli.names import Variance

Origin = Literal["baseline", "spread", "refined", "elbo", "teacher", "shaped", "varied", "given"]
Place = tuple[float, float, int]  # two coordinates in [0, 1], and which variance

LEAST_BETA = (2 / 255) ** 2
MOST_SIGNAL = 0.3
BASES = (2, 3)
WIDEST, NARROWEST = 0.25, 0.03  # half the side of the boxes of refinement
BISECTIONS = 100


@dataclass(frozen=True)
class Candidate:
    """A linear schedule to be tried."""

    origin: Origin
    place: Place
    beta_1: float
    beta_T: float  # noqa: N815
    variance: Variance
    alpha_bar: tuple[float, ...]


@dataclass(frozen=True)
class Space:
    """The linear schedules of so many steps.

    alpha_bar_T: where training ends. variances: the one to begin with, and another if there is
    a choice.
    """

    steps: int
    alpha_bar_T: float  # noqa: N815
    variances: tuple[Variance, ...]

    @property
    def chooses(self) -> bool:
        """Whether the variance is a choice; a single step draws no noise."""
        return len(self.variances) > 1 and self.steps > 1

    def make_candidate(self, place: Place, origin: Origin) -> Candidate:
        """Return the schedule at a place."""
        u_1, u_T, which = place
        low, high = math.log(self.alpha_bar_T), math.log(max(MOST_SIGNAL, self.alpha_bar_T))
        log_alpha_bar = low + u_T * (high - low)
        constant = -math.expm1(log_alpha_bar / self.steps)
        first = math.log(min(LEAST_BETA, constant))
        beta_1 = math.exp(first + u_1 * (math.log(constant) - first))
        if self.steps == 1:
            beta_1 = constant
        beta_T = solve_last_beta(self.steps, beta_1, log_alpha_bar)
        alpha_bar = linear(self.steps, beta_1, beta_T).alpha_bar[1:]
        variance = self.variances[which]
        return Candidate(origin, place, beta_1, beta_T, variance, tuple(alpha_bar.tolist()))


def solve_last_beta(steps: int, beta_1: float, log_alpha_bar: float) -> float:
    """Return the beta_T >= beta_1 at which the linear schedule ends at this log alpha_bar_T.

    Solved by bisection: log alpha_bar_T = sum of log(1 - beta_t) decreases with beta_T. Given
    beta_1 no larger than that of the constant schedule, there is exactly one.
    """
    if steps == 1:
        return beta_1
    share = np.linspace(0, 1, steps)
    low, high = beta_1, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if float(np.log1p(-(beta_1 + share * (middle - beta_1))).sum()) > log_alpha_bar:
            low = middle
        else:
            high = middle
    return low


def propose(
    space: Space, number: int, trials: int, scored: Sequence[tuple[Place, float]], seed: int
) -> Candidate:
    """Return trial `number` = 1..trials, given the places and scores of those before it.

    The lower a score the better; of equals the earlier one counts.
    """
    spread = -(-trials // 2)
    h_1, h_T = halton(number, seed)
    if number <= spread:
        return space.make_candidate((h_1, h_T, 0), "spread")
    best, _ = min(scored, key=lambda pair: pair[1])
    done, ahead = number - spread - 1, trials - spread
    other = best[0], best[1], 1 - best[2]
    if done in (0, ahead - 1) and space.chooses and all(place != other for place, _ in scored):
        return space.make_candidate(other, "refined")
    half = WIDEST * (NARROWEST / WIDEST) ** (done / max(1, ahead - 1))
    near = [u + half * (2 * h - 1) for u, h in ((best[0], h_1), (best[1], h_T))]
    near = [1 - abs(1 - abs(u)) for u in near]  # what lies beyond 0 or 1 is reflected
    return space.make_candidate((near[0], near[1], best[2]), "refined")


def halton(number: int, seed: int) -> tuple[float, float]:
    """Return point `number` of the Halton sequence (1960) in two dimensions, shifted by a seed."""
    shift = hash_ids(np.arange(len(BASES)), seed).astype(np.float64) / 2**64
    u_1, u_T = (
        (radical_inverse(number, base) + float(by)) % 1.0
        for base, by in zip(BASES, shift, strict=True)
    )
    return u_1, u_T


def radical_inverse(number: int, base: int) -> float:
    """Return the digits of a number mirrored at the point: 6 = 110 in base 2 becomes 0.011."""
    value, weight = 0.0, 1.0
    while number:
        weight /= base
        number, digit = divmod(number, base)
        value += weight * digit
    return value
