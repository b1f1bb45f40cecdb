"""Mirrors cdm_cli/diffusion/between.py: closed forms, of which `Impulses` has no sampling error."""

import itertools
import math
from functools import partial
from itertools import pairwise
from typing import get_args

import pytest
import torch

from cdm_cli.diffusion.between import choose_rule, draw_between, mix_between, weigh_bridge
from cdm_cli.diffusion.noise import Noise
from cdm_cli.diffusion.process import predict_eps, q_posterior, q_sample, renoise
from cdm_cli.diffusion.samplers import ancestral, bind
from cdm_cli.diffusion.schedules import Schedule, cosine, from_alpha_bar, linear, spread_schedule
from cdm_cli.names import Sampler
from tests.oracles import GaussianData, Impulses, MixtureData

DATA = GaussianData(mean=0.3, std=0.5)
WHOLE = {"cosine": cosine(60), "linear": linear(60)}
COSINE = cosine(4000)
each_schedule = pytest.mark.parametrize("whole", WHOLE.values(), ids=WHOLE)


def forward(whole, data, times, impulses):
    """The states of the forward process at increasing times, as affine functions of impulses."""
    x_0 = data.sample(impulses.source())
    states, before, x = {0: x_0}, 0, x_0
    for t in times:
        a, b = torch.tensor([before]), torch.tensor([t])
        x = renoise(whole, x, a.expand(len(x)), b.expand(len(x)), impulses.source())
        states[t], before = x, t
    return states


def covariances(states, impulses):
    return {
        (s, t): impulses.covariance(states[s], states[t])
        for s, t in itertools.combinations_with_replacement(sorted(states), 2)
    }


def exact(whole, data, times):
    return {
        (s, t): pytest.approx(data.covariance(whole, s, t), rel=1e-9)
        for s, t in itertools.combinations_with_replacement(sorted(times), 2)
    }


@each_schedule
def test_below_the_last_step_it_is_the_posterior_given_x_0(whole, randn_like):
    x_0, x_t = (randn_like(torch.empty(2, 1, 3, 3)).double() for _ in range(2))
    for b in (2, 30, 60):
        of_x_0, of_x_t, std = weigh_bridge(whole, 0, b - 1, b)
        mean = of_x_0 * x_0 + of_x_t * x_t
        expected = q_posterior(whole, x_0, x_t, torch.tensor([b, b]))
        torch.testing.assert_close(mean, expected.mean, rtol=1e-9, atol=1e-12)
        assert std**2 == pytest.approx(whole.beta_tilde[b].item(), rel=1e-9)


@each_schedule
def test_what_is_drawn_between_two_states_of_the_forward_process_is_a_third(whole):
    """All covariances, with x_0 as well, are those of q(x_0, x_a, x_s, x_s', …, x_b)."""
    a, b, kept = 7, 41, (8, 11, 24, 25, 40)
    impulses = Impulses(40)
    ends = forward(whole, DATA, (a, b), impulses)
    noise_at = lambda s, x: impulses.source()  # noqa: E731
    states = ends | draw_between(whole, kept, (a, ends[a]), (b, ends[b]), noise_at, 1)
    assert sorted(states) == [0, a, *kept, b]
    assert covariances(states, impulses) == exact(whole, DATA, states)
    for s, x_s in states.items():
        mean = DATA.moments(whole, s)[0]
        assert impulses.moments(x_s)[0] == pytest.approx(mean, rel=1e-9)


def test_no_state_changes_with_which_others_are_kept(randn_like):
    ids = torch.arange(3)
    x_a, x_b = (randn_like(torch.empty(3, 1, 4, 4)) for _ in range(2))

    def kept(times):
        noise = Noise(0, "base8/between", ids)

        def noise_at(s, x):
            noise.skip_to(s)
            return noise(x)

        return draw_between(COSINE, times, (160, x_a), (320, x_b), noise_at, 1)

    everything = kept(range(4001))
    assert sorted(everything) == list(range(161, 320))
    for times in [(161,), (251,), (319, 250, 251), (240, 241), (1, 160, 320, 4000)]:
        some = kept(times)
        assert sorted(some) == sorted(s for s in times if 160 < s < 320)
        assert all(torch.equal(x_s, everything[s]) for s, x_s in some.items())


def test_nothing_is_drawn_that_no_kept_time_needs():
    asked = []

    def noise_at(s, x):
        asked.append(s)
        return torch.zeros_like(x)

    x = torch.zeros(1, 1, 1, 1)
    draw_between(COSINE, (), (0, x), (4000, x), noise_at, 1)
    assert not asked
    draw_between(COSINE, (251,), (0, x), (4000, x), noise_at, 1)
    assert asked == [2000, 1000, 500, 250, 375, 312, 281, 265, 257, 253, 251]


@each_schedule
def test_shared_noise_is_the_x_0_and_eps_of_both_ends(whole, randn_like):
    x_0, eps = (randn_like(torch.empty(2, 1, 3, 3)).double() for _ in range(2))
    at = lambda t: q_sample(whole, x_0, torch.tensor([t, t]), eps)  # noqa: E731
    for a, b in [(0, 60), (0, 2), (13, 29)]:
        found = mix_between(whole, range(61), (a, at(a)), (b, at(b)))
        assert sorted(found) == list(range(a + 1, b))
        for s, x_s in found.items():
            torch.testing.assert_close(x_s, at(s), rtol=1e-9, atol=1e-9)


def test_between_two_states_of_ddim_is_its_own_step_to_there(randn_like):
    """Neighbours of one step apart in float32, too: nothing is divided by their distance."""
    x_t, x_0 = randn_like(torch.empty(2, 1, 3, 3)), randn_like(torch.empty(2, 1, 3, 3)) / 3
    at = lambda t: torch.tensor([t, t])  # noqa: E731
    for a, s, b in [(0, 20, 40), (2000, 2001, 2002), (3000, 3990, 4000)]:
        eps = predict_eps(COSINE, x_t, at(b), x_0)
        below = q_sample(COSINE, x_0, at(a), eps)
        found = mix_between(COSINE, (s,), (a, below), (b, x_t))[s]
        expected = q_sample(COSINE, x_0, at(s), eps)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


# Together with the samplers.


def states_of(sampler, network, few, x_T, between):
    """The states that a sampler visits, and those in each gap, by the times of training."""
    times = few.times.tolist()
    visited = [(times[-1], x_T), *((times[t], x_t) for t, x_t in sampler(network, few, x_T))]
    found = dict(visited)
    for above, below in pairwise(visited):
        found |= between(below, above)
    return found


@pytest.mark.parametrize("whole", [COSINE, linear(1000)], ids=["cosine", "linear"])
def test_kept_states_have_the_law_of_the_forward_process_and_z_0_with_them(whole):
    """A perfect model: every z_s, visited or not, two of one gap, of two gaps, and with z_0.

    z_0 is the mean of x_0 given x_1, so that with z_s, s >= 1, it has the covariance of x_0.
    """
    few = spread_schedule(whole, 9)
    kept = (2, 50, 51, 100, 377, 900)
    times = few.times.tolist()
    assert not set(kept) & set(times)
    impulses = Impulses(200)
    mean, var = DATA.moments(whole, whole.T)
    sampler = partial(ancestral, randn_like=impulses.randn_like, variance="learned", clip=False)
    noise_at = lambda s, x: impulses.source()  # noqa: E731
    states = states_of(
        sampler, DATA.with_v(few), few, impulses.source(mean, var**0.5),
        lambda below, above: draw_between(whole, kept, below, above, noise_at, 1),
    )  # fmt: skip
    asked = {s: states[s] for s in (*kept, times[3], times[-1])}
    assert covariances(asked, impulses) == exact(whole, DATA, asked)
    for s in kept:
        moments = DATA.moments(whole, s)
        assert impulses.moments(states[s]) == pytest.approx(moments, rel=1e-8)
        with_z_0 = impulses.covariance(states[s], states[0])
        assert with_z_0 == pytest.approx(DATA.covariance(whole, 0, s), rel=1e-8)


@pytest.mark.parametrize("name", ["ddim", "dpm-solver++"])
@pytest.mark.parametrize("k", [0.05, 0.3, 0.8, 0.999])
def test_kept_states_of_steps_that_draw_a_part_have_the_marginal_of_the_forward_process(name, k):
    """Data of one point: every z_s, in any gap, below the last step, and several of one gap."""
    data, few = GaussianData(mean=0.3, std=0.0), spread_schedule(COSINE, 5)
    kept = (1, 2, 51, 377, 900, 901, 1500, 3000, 3999)
    impulses = Impulses(300)
    mean, var = data.moments(COSINE, COSINE.T)
    sampler = bind(name, randn_like=impulses.randn_like, clip=False, stochasticity=[k] * few.T)
    states = states_of(
        sampler, data.eps_theta(few), few, impulses.source(mean, var**0.5),
        lambda below, above: draw_between(
            COSINE, kept, below, above, lambda s, x: impulses.source(), k
        ),
    )  # fmt: skip
    assert {*kept} <= {*states}
    for s, x_s in states.items():
        expected = data.moments(COSINE, s)
        assert impulses.moments(x_s) == pytest.approx(expected, rel=1e-7, abs=1e-12)


def test_the_ends_of_stochasticity_are_limits_of_what_is_between(randn_like):
    x_a, x_b = (randn_like(torch.empty(2, 1, 4, 4)).double() for _ in range(2))
    noise = {s: randn_like(x_a).double() for s in range(200, 400)}
    noise_at = lambda s, x: noise[s]  # noqa: E731
    ends = (210, x_a), (390, x_b)
    for k in (0.0, 1.0):
        end = draw_between(COSINE, (251, 300), *ends, noise_at, k)
        near = draw_between(COSINE, (251, 300), *ends, noise_at, abs(k - 1e-9))
        for s in (251, 300):
            torch.testing.assert_close(near[s], end[s], rtol=1e-3, atol=1e-3)


def test_no_state_of_partly_shared_noise_changes_with_which_others_are_kept(randn_like):
    x_a, x_b = (randn_like(torch.empty(3, 1, 4, 4)) for _ in range(2))
    noise = {s: randn_like(x_a) for s in range(161, 320)}
    noise_at = lambda s, x: noise[s]  # noqa: E731
    kept = lambda times: draw_between(COSINE, times, (160, x_a), (320, x_b), noise_at, 0.4)  # noqa: E731
    everything = kept(range(4001))
    for times in [(161,), (319, 250, 251), (240, 241), (1, 160, 320, 4000)]:
        some = kept(times)
        assert sorted(some) == sorted(s for s in times if 160 < s < 320)
        assert all(torch.equal(x_s, everything[s]) for s, x_s in some.items())


def own_k(name):
    return float(choose_rule(name) == "bridge")


def error_between(sampler, steps, k):
    """Error of the variance in the middle of the step that ends at log-SNR 3, as next door."""
    log_snr = torch.linspace(3, -8, steps + 1, dtype=torch.float64)
    halves = torch.stack([log_snr, log_snr - (log_snr[0] - log_snr[1]) / 2], 1).flatten()[:-1]
    first = torch.tensor([6.0], dtype=torch.float64)
    whole = from_alpha_bar(torch.cat([first, halves]).sigmoid())  # t = 1 + 2 k are stepped on
    kept = torch.cat([torch.tensor([0, 1]), torch.arange(2, whole.T + 1, 2)])
    few = Schedule(whole.alpha_bar[kept], whole.times[kept])
    mean, var = DATA.moments(few, few.T)
    impulses = Impulses(few.T + 1)
    s = whole.times[3].item()
    states = states_of(
        sampler(impulses.randn_like), DATA.eps_theta(few), few, impulses.source(mean, var**0.5),
        lambda below, above: draw_between(
            whole, (s,), below, above, lambda s, x: impulses.source(), k
        ),
    )  # fmt: skip
    return abs(impulses.moments(states[s])[1] - DATA.moments(whole, s)[1])


@pytest.mark.parametrize(
    ("name", "order"),
    [("ddim", 1), ("dpm-solver++", 2), ("ancestral", 1), ("sde-dpm-solver++", 2)],
)
def test_states_between_are_as_accurate_as_those_that_are_visited(name, order):
    """Halving the step divides the error of the truncated state by 2 ** order."""
    bound = lambda noise: bind(name, randn_like=noise, clip=False)  # noqa: E731
    coarse, fine = (error_between(bound, steps, own_k(name)) for steps in (320, 640))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpm-solver++", 2)])
def test_states_between_steps_that_draw_a_part_are_as_accurate(name, order):
    def bound(noise):
        return lambda network, few, x_T: bind(
            name, randn_like=noise, clip=False, stochasticity=[0.9] * few.T
        )(network, few, x_T)

    coarse, fine = (error_between(bound, steps, 0.9) for steps in (320, 640))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("name", get_args(Sampler))
@pytest.mark.parametrize("s", [7, 251])
def test_two_modes_come_out_alike_truncated_or_not(name, s, randn_like, generator):
    """Section 3.3, at times that 60 steps do not visit; s = 7 is below the last one but t = 1."""
    data, few = MixtureData(low=-0.6, high=0.4, std=0.15), spread_schedule(COSINE, 60, sampler=name)
    assert s not in few.times.tolist()
    z_T = randn_like(torch.empty(20_000, 1, 1, 1))
    sampler = bind(name, randn_like=randn_like, clip=False)
    states = states_of(
        sampler, data.eps_theta(few), few, z_T,
        lambda below, above: draw_between(
            COSINE, (s,), below, above, lambda s, x: randn_like(x), own_k(name)
        ),
    )  # fmt: skip
    z_0 = data.sample(randn_like(z_T), torch.rand(z_T.shape, generator=generator))
    z_s_prime = q_sample(COSINE, z_0, torch.full((20_000,), s), randn_like(z_0))
    quantiles = torch.tensor([0.1, 0.25, 0.4, 0.6, 0.75, 0.9])
    torch.testing.assert_close(
        states[s].flatten().quantile(quantiles), z_s_prime.flatten().quantile(quantiles),
        rtol=0, atol=0.03,
    )  # fmt: skip


def test_float32_stays_float32():
    x = torch.zeros(1, 1, 2, 2)
    for k in (0, 0.5, 1):
        found = draw_between(COSINE, (5,), (0, x), (9, x), lambda s, x: torch.ones_like(x), k)
        assert {x_s.dtype for x_s in found.values()} == {torch.float32}


def test_every_sampler_has_its_rule():
    rules = {name: choose_rule(name) for name in ("ancestral", "sde-dpm-solver++")}
    assert set(rules.values()) == {"bridge"}
    assert {choose_rule("ddim"), choose_rule("dpm-solver++")} == {"shared-noise"}
    assert choose_rule("ddim", [0.5]) == "partly-shared-noise"
