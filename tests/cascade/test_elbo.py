"""Mirrors cdm_cli/cascade/elbo.py: for Gaussian data both bounds have closed forms.

beta_1 is large, so that the bin of a byte is narrow against the decoder at t = 1.
"""

import math

import pytest
import torch

from cdm_cli.cascade.chain import build_chain
from cdm_cli.cascade.conditioning import draw_non_truncated
from cdm_cli.cascade.elbo import bound, cut_strata, estimate_mean_and_error, join_bounds
from cdm_cli.cascade.generate import SampleInputs
from cdm_cli.config import ConditioningConfig, ModelConfig, ScheduleConfig, StageConfig
from cdm_cli.data.pixels import from_uint8, to_uint8
from cdm_cli.diffusion.process import gather
from cdm_cli.diffusion.schedules import from_config
from cdm_cli.options.sampling import Sampling
from tests.oracles import GaussianData

NUM, DETAIL = 512, 0.15  # images; standard deviation of x_0 given z_0
SCHEDULE = ScheduleConfig(kind="linear", T=40, beta_1=0.05, beta_T=0.4)
MODEL = ModelConfig(resolution=8, channels=1, base_channels=8, channel_mult=(1,))
BASE = StageConfig(kind="base", model=MODEL, schedule=SCHEDULE)
SR = StageConfig(
    kind="sr", model=MODEL, schedule=SCHEDULE,
    conditioning=ConditioningConfig(resolution=8, z_schedule=SCHEDULE),
)  # fmt: skip
DATA = GaussianData(mean=0.1, std=0.2)
ALL_T = Sampling(steps=0, clip=False)
IDS = torch.arange(NUM)


class IdealBase:
    """A stage whose network is the true reverse process of Gaussian pixels."""

    config, device = BASE, torch.device("cpu")

    def eps_theta(self, schedule, y, z_s=None, s=None):
        return DATA.with_v(schedule)


class IdealSr(IdealBase):
    """The same for x_0 = z_0 + detail, given z_s."""

    config = SR

    def eps_theta(self, schedule, y, z_s=None, s=None):
        mean, var = posterior(z_s.double(), s)
        return GaussianData(mean, (var + DETAIL**2) ** 0.5).with_v(schedule)


def posterior(z_s, s):
    """Mean [B, 1, 8, 8] and variance of z_0 given z_s."""
    a = gather(from_config(SCHEDULE).alpha_bar, s).view(-1, 1, 1, 1)
    total = a * DATA.std**2 + 1 - a
    slope = a.sqrt() * DATA.std**2 / total
    return DATA.mean + slope * (z_s - a.sqrt() * DATA.mean), (DATA.std**2 * (1 - a) / total)[
        0
    ].item()


@pytest.fixture
def pair(generator):
    """z_0 and x_0 as bytes [NUM, 1, 8, 8]."""
    eps, detail = torch.randn(2, NUM, 1, 8, 8, generator=generator)
    z_0 = to_uint8(DATA.sample(eps))
    return z_0, to_uint8(from_uint8(z_0) + DETAIL * detail)


def in_bits(log_density):
    """-log2 of the probability of bytes from a density over [-1, 1], per dimension [B]."""
    return -(log_density + math.log(2 / 255)).double().mean((1, 2, 3)) / math.log(2)


def base_bound(z_0, **kwargs):
    chain = build_chain(BASE, ALL_T, visit=kwargs.pop("visit", ()))
    return bound(
        IdealBase(), chain, from_uint8(z_0), SampleInputs(IDS[: len(z_0)]), seed=0, **kwargs
    )


def sr_bound(x_0, z_0, s, **kwargs):
    z_s = draw_non_truncated(SR, z_0, s, ids=IDS, seed=0)
    samples = SampleInputs(IDS, z_s=z_s, s=torch.full((NUM,), s))
    return bound(IdealSr(), build_chain(SR, ALL_T), from_uint8(x_0), samples, seed=0, **kwargs)


def test_bound_of_the_true_process_is_the_likelihood(pair):
    z_0, _ = pair
    got, exact = base_bound(z_0), in_bits(DATA.log_density(from_uint8(z_0)))
    mean, error = estimate_mean_and_error(got.total - exact)
    assert error < 0.006
    assert mean == pytest.approx(0, abs=0.015)
    assert torch.corrcoef(torch.stack([got.total, exact]))[0, 1] > 0.6
    assert got.prior.max() < got.decoder.min()


def test_fewer_terms_estimate_the_same_sum(pair):
    z_0, _ = pair
    difference = base_bound(z_0, terms=8).total - base_bound(z_0).total
    mean, error = estimate_mean_and_error(difference)
    assert 0 < error < 0.03
    assert abs(mean) < 4 * error


def test_another_process_has_a_higher_bound(pair):
    """A network for data of the wrong width pays for it."""

    class Wrong(IdealBase):
        def eps_theta(self, schedule, y, z_s=None, s=None):
            return GaussianData(mean=0.1, std=0.3).with_v(schedule)

    z_0, _ = pair
    wrong = bound(
        Wrong(), build_chain(BASE, ALL_T), from_uint8(z_0), SampleInputs(IDS), seed=0
    ).total.mean()
    assert wrong > base_bound(z_0).total.mean() + 0.05


def closed_form(z_0, x_0, s):
    """Eq. 3 of the true processes: its expectation over z_s ~ q(z_s | z_0), in bits; [B]."""
    z, x = from_uint8(z_0).double(), from_uint8(x_0).double()
    a = from_config(SCHEDULE).alpha_bar[s].item()
    total = a * DATA.std**2 + 1 - a
    ratio = (1 - a) / total
    divergence = 0.5 * (ratio - 1 - math.log(ratio) + a * (z - DATA.mean) ** 2 / total)
    slope = a**0.5 * DATA.std**2 / total
    var = DATA.std**2 * ratio + DETAIL**2
    error = (x - DATA.mean - slope * a**0.5 * (z - DATA.mean)) ** 2 + slope**2 * (1 - a)
    log_x_0 = -0.5 * (math.log(2 * math.pi * var) + error / var)
    return divergence.mean((1, 2, 3)) / math.log(2) + in_bits(log_x_0)


@pytest.mark.parametrize("s", [5, 20, 40])
def test_eq_3_matches_its_closed_form(s, pair):
    z_0, x_0 = pair
    low = base_bound(z_0, s=s, visit=(s,))
    assert low.decoder.abs().max() == 0
    together = join_bounds([low, sr_bound(x_0, z_0, s)], [64, 64])
    mean, error = estimate_mean_and_error(together - closed_form(z_0, x_0, s))
    assert error < 0.006
    assert mean == pytest.approx(0, abs=0.015)


def test_eq_3_bounds_the_likelihood_and_tightens_with_less_noise(pair):
    """Of the data here, z_0 tells nothing that x_0 needs at s = T, where Eq. 3 is tight too."""
    z_0, x_0 = pair
    marginal = GaussianData(DATA.mean, (DATA.std**2 + DETAIL**2) ** 0.5)
    exact = in_bits(marginal.log_density(from_uint8(x_0))).mean().item()
    bits = {s: closed_form(z_0, x_0, s).mean().item() for s in (1, 5, 20, 40)}
    assert bits[40] == pytest.approx(exact, abs=0.02)
    assert bits[1] > bits[5] > bits[20] > exact - 0.02


def test_eq_3_at_s_0_is_the_joint_likelihood_of_the_pair(pair):
    z_0, x_0 = pair
    together = join_bounds([base_bound(z_0), sr_bound(x_0, z_0, 0)], [64, 64])
    given = GaussianData(from_uint8(z_0), DETAIL)
    exact = in_bits(DATA.log_density(from_uint8(z_0))) + in_bits(given.log_density(from_uint8(x_0)))
    assert estimate_mean_and_error(together - exact)[0] == pytest.approx(0, abs=0.025)


def test_joined_weighs_by_dimensions():
    class Part:
        def __init__(self, total):
            self.total = torch.tensor([total])

    assert join_bounds([Part(4.0), Part(1.0)], [16, 64]).item() == pytest.approx(2.0)


def test_memory_that_a_library_lacks_is_memory(pair, monkeypatch):
    def lacking(*_, **__):
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")

    monkeypatch.setattr(IdealBase, "eps_theta", lacking)
    with pytest.raises(torch.OutOfMemoryError, match="ALLOC_FAILED"):
        base_bound(pair[0])


def test_an_image_has_its_own_noise_in_any_batch(pair):
    z_0, _ = pair
    told = []
    many = base_bound(z_0[:4], terms=5, advance=told.append).total
    one = bound(
        IdealBase(), build_chain(BASE, ALL_T), from_uint8(z_0[2:3]), SampleInputs(IDS[2:3]),
        seed=0, terms=5,
    ).total  # fmt: skip
    torch.testing.assert_close(one, many[2:3])
    assert told == [4] * 5


@pytest.mark.parametrize(("T", "num", "s"), [(4000, 64, 0), (4000, 7, 501), (10, 9, 0), (10, 4, 3)])
def test_strata_cut_all_times_and_grow(T, num, s):
    edges = cut_strata(T, num, s)
    sizes = edges.diff()
    assert len(sizes) == num
    assert edges[0] == s
    assert edges[-1] == T
    assert sizes.min() >= 1
    assert s or sizes[0] == 1
    assert sizes[-1] == sizes.max()


@pytest.mark.parametrize("num", [0, 7, 100])
def test_strata_of_one_t_each(num):
    assert cut_strata(10, num, 3).tolist() == [3, 4, 5, 6, 7, 8, 9, 10]


def test_one_stratum_is_too_few():
    with pytest.raises(ValueError, match="one stratum"):
        cut_strata(10, 1)


def test_mean_and_error():
    mean, error = estimate_mean_and_error(torch.tensor([1.0, 3.0]))
    assert mean == 2.0
    assert error == pytest.approx(1.0)
    assert estimate_mean_and_error(torch.tensor([5.0])) == (5.0, 0.0)
