"""Noise schedules: float64 tables of T + 1 entries, indexed by t = 0..T directly.

alpha_bar[0] = 1 and beta[0] = 0, so `alpha_bar[t - 1]` is literally alpha_bar_{t-1}
and t = 0 (or s = 0) is the clean image without a special case.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cdm_cli.config import ScheduleConfig
from cdm_cli.errors import UsageError
from cdm_cli.names import Sampler


@dataclass(frozen=True)
class Schedule:
    """A forward process q and the times at which the network was trained.

    alpha_bar: float64 [T + 1], decreasing from alpha_bar[0] = 1, positive.
    times: int64 [T + 1], the network's own time of each entry: 0..T for the schedule of
    training, the retained original times after `respace` (Nichol & Dhariwal 2021, Sec. 4).
    """

    alpha_bar: Tensor
    times: Tensor

    @property
    def T(self) -> int:  # noqa: N802
        """Number of steps; x_T is nearly standard normal."""
        return len(self.alpha_bar) - 1

    def to(self, device: torch.device | str) -> "Schedule":
        """Return the same tables on a device, where a loop then gathers without a copy."""
        if self.alpha_bar.device == torch.device(device):
            return self
        return Schedule(self.alpha_bar.to(device), self.times.to(device))

    @cached_property
    def beta(self) -> Tensor:
        """beta_t = 1 - alpha_bar_t / alpha_bar_{t-1} (Section 2.1), beta[0] = 0; [T + 1]."""
        ratio = self.alpha_bar[1:] / self.alpha_bar[:-1]
        return torch.cat([ratio.new_zeros(1), 1 - ratio])

    @cached_property
    def beta_tilde(self) -> Tensor:
        """beta_tilde_t = (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) beta_t (Section 2.1); [T + 1].

        beta_tilde_1 = 0: the posterior of x_0 given x_0 is a point.
        """
        alpha_bar = self.alpha_bar
        tail = (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:]) * self.beta[1:]
        return torch.cat([tail.new_zeros(1), tail])

    @cached_property
    def log_beta_tilde(self) -> Tensor:
        """log beta_tilde, with t = 0 and 1 clipped to t = 2 (Ho et al. 2020); [T + 1].

        With T = 1 there is no t = 2, and log beta_1 takes its place.
        """
        source = self.beta_tilde if self.T > 1 else self.beta
        table = source.clone()
        table[:2] = source[min(2, self.T)]
        return table.log()


def from_alpha_bar(alpha_bar: Tensor) -> Schedule:
    """Take any decreasing alpha_bar_1..alpha_bar_T, float64 [T], as a schedule.

    Raises ValueError unless 1 > alpha_bar_1 > ... > alpha_bar_T > 0.
    """
    table = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar.double()])
    if len(table) < 2 or not bool((table[1:] < table[:-1]).all()) or not bool(table[-1] > 0):
        raise ValueError("alpha_bar must decrease strictly from below 1 to above 0")
    return Schedule(table, torch.arange(len(table)))


def from_beta(beta: Tensor) -> Schedule:
    """Take beta_1..beta_T in (0, 1), float64 [T]; alpha_bar_t is the product of 1 - beta."""
    return from_alpha_bar((1 - beta.double()).cumprod(0))


def cosine(T: int) -> Schedule:
    """Cosine schedule (Nichol & Dhariwal 2021, Eq. 17), alpha_bar recomputed from clipped beta.

    beta_t is clipped at 0.999, which for T = 1000 and T = 4000 touches beta_T alone.
    """
    u = torch.arange(T + 1, dtype=torch.float64) / T
    f = ((u + 0.008) / 1.008 * math.pi / 2).cos().square()
    return from_beta((1 - f[1:] / f[:-1]).clamp(max=0.999))


def linear(T: int, beta_1: float | None = None, beta_T: float | None = None) -> Schedule:
    """beta linear from beta_1 to beta_T (Ho et al. 2020), by default 1e-4 and 0.02 at T = 1000.

    The defaults scale with 1000 / T, so that alpha_bar_T stays near 4e-5 for every T.
    Raises ValueError where a beta leaves (0, 1): the scaled form needs T > 20.
    """
    first = 1e-4 * 1000 / T if beta_1 is None else beta_1
    last = 0.02 * 1000 / T if beta_T is None else beta_T
    if not (0 < first < 1 and 0 < last < 1):
        raise ValueError(f"beta from {first:g} to {last:g} leaves (0, 1) at T = {T}")
    return from_beta(torch.linspace(first, last, T, dtype=torch.float64))


def from_config(config: ScheduleConfig) -> Schedule:
    """Build the schedule that a stage names; raises UsageError where it is none."""
    try:
        if config.alpha_bar is not None:
            return from_alpha_bar(torch.tensor(config.alpha_bar, dtype=torch.float64))
        if config.kind == "linear":
            return linear(config.T, config.beta_1, config.beta_T)
        return cosine(config.T)
    except ValueError as error:
        raise UsageError(
            f"schedule: {error}", next="--set schedule.T=2000, or other values"
        ) from None


def respace(schedule: Schedule, times: Tensor) -> Schedule:
    """Keep alpha_bar at the given times only (Nichol & Dhariwal 2021, Sec. 4, Eq. 19).

    times: increasing int64 within 1..T. The network is still fed its original times.
    """
    kept = torch.cat([torch.zeros(1, dtype=torch.int64), times.long()])
    if not bool((kept[1:] > kept[:-1]).all()) or int(kept[-1]) > schedule.T:
        raise ValueError(f"times must increase within 1..{schedule.T}")
    return Schedule(schedule.alpha_bar[kept], schedule.times[kept])


def spread_schedule(
    schedule: Schedule,
    steps: int | None,
    visit: Sequence[int] = (),
    sampler: Sampler = "ancestral",
    times: Tensor | None = None,
) -> Schedule:
    """Respace a schedule to evenly spread steps, so that every time in `visit` is one of them.

    steps: None, 0, or T and more keep all T. visit: times within 0..T, such as that of a restart;
    with them the result may have more than `steps` steps, and `find_index` finds them in it. times:
    those to keep, int64 within 1..T, instead of evenly spread ones. Raises ValueError for a time
    beyond T.

    The DPM-Solvers do not visit t = 1: in lambda, the step from T / steps to there is several
    times as long as the one before, and would extrapolate that far.
    """
    if not steps or steps >= schedule.T:
        return schedule
    if times is None:
        spread = space_times if sampler in ("ancestral", "ddim") else trailing_times
        times = spread(schedule.T, steps)
    wanted = {*times.tolist(), *visit} - {0}
    return respace(schedule, torch.tensor(sorted(wanted)))


def find_index(schedule: Schedule, time: int) -> int:
    """Return the t of this schedule whose original time it is; ValueError if not retained."""
    return schedule.times.tolist().index(time)


def space_times(T: int, steps: int) -> Tensor:
    """Return `steps` times within 1..T, evenly spread, both ends included; int64 [steps].

    One step is T alone. Raises ValueError unless 1 <= steps <= T.
    """
    _check_steps(T, steps)
    if steps == 1:
        return torch.tensor([T])
    return torch.linspace(1, T, steps, dtype=torch.float64).round().long()


def trailing_times(T: int, steps: int) -> Tensor:
    """Return T / steps, 2 T / steps, ..., T, rounded ("trailing": Lin et al. 2024, Table 2).

    int64 [steps]. Raises ValueError unless 1 <= steps <= T.
    """
    _check_steps(T, steps)
    return (torch.arange(1, steps + 1, dtype=torch.float64) * T / steps).round().long()


def list_openai_times(T: int, respacing: str) -> Tensor:
    """Return the times that openai's packages keep for a `timestep_respacing`; int64, within 1..T.

    "250" or "10,10,20": 1..T is cut into as many sections, of equal length or the first ones
    longer by one. Of each, so many times are kept, from its first to its last, their distance
    added up in floating point and rounded half to even (one: the first). "ddim25": every i-th
    time from 1 on, with the smallest i that leaves 25. Raises ValueError for what cannot be.
    """
    if respacing.startswith("ddim"):
        return _stride(T, int(respacing.removeprefix("ddim")))
    counts = [int(word) for word in respacing.split(",")]
    length, longer = divmod(T, len(counts))
    kept: list[int] = []
    first = 1
    for number, count in enumerate(counts):
        size = length + (number < longer)
        if not 0 <= count <= size:
            raise ValueError(f"{count} steps do not fit into a section of {size} times")
        step = (size - 1) / (count - 1) if count > 1 else 1.0
        places = itertools.accumulate([step] * (count - 1), initial=0.0)
        kept += [first + round(place) for place in itertools.islice(places, count)]
        first += size
    if not kept:
        raise ValueError("no steps are left")
    return torch.tensor(kept)


def _stride(T: int, steps: int) -> Tensor:
    for stride in range(1, T):
        if -(-T // stride) == steps:
            return torch.arange(1, T + 1, stride)
    raise ValueError(f"no whole stride leaves {steps} of {T} times")


def _check_steps(T: int, steps: int) -> None:
    if not 1 <= steps <= T:
        raise ValueError(f"{steps} steps do not fit into 1..{T}")
