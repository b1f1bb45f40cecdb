"""Mirrors cdm_cli/diffusion/samplers.py: order of calls, and identities between samplers."""

import math
from functools import partial
from itertools import product
from typing import get_args

import pytest
import torch

from cdm_cli.diffusion.reverse import predict_clipped_x_0
from cdm_cli.diffusion.samplers import ancestral, bind, ddim, dpm_solver_pp, restart
from cdm_cli.diffusion.schedules import cosine, find_index, linear, spread_schedule
from cdm_cli.names import Sampler
from tests.oracles import GaussianData, Impulses

DATA = GaussianData(mean=0.3, std=0.5)
NAMES = get_args(Sampler)
ALL = torch.ones(11, dtype=torch.float64)  # of up to ten steps


class Recorder:
    """A network and a source of noise that write down when they are called."""

    def __init__(self):
        self.calls = []

    def eps_theta(self, x_t, t):
        self.calls.append(f"eps {t.unique().item()}")
        return torch.zeros_like(x_t)

    def randn_like(self, x_t):
        self.calls.append("noise")
        return torch.zeros_like(x_t)


def no_noise(x):
    raise AssertionError("noise was drawn")


@pytest.mark.parametrize(
    ("sampler", "calls"),
    [
        (ancestral, ["eps 3", "noise", "eps 2", "noise", "eps 1"]),
        (partial(ddim, stochasticity=ALL), ["eps 3", "noise", "eps 2", "noise", "eps 1"]),
        (ddim, ["eps 3", "eps 2", "eps 1"]),
        (dpm_solver_pp, ["eps 3", "noise", "eps 2", "noise", "eps 1"]),
    ],
)
def test_order_of_calls_and_no_noise_at_the_end(sampler, calls):
    recorder = Recorder()
    steps = sampler(
        recorder.eps_theta, cosine(3), torch.zeros(2, 3, 4, 4), randn_like=recorder.randn_like
    )
    assert [t for t, _ in steps] == [2, 1, 0]
    assert recorder.calls == calls


def test_dpm_solver_evaluates_the_network_once_per_step():
    recorder = Recorder()
    steps = dpm_solver_pp(recorder.eps_theta, cosine(3), torch.zeros(2, 3, 4, 4))
    assert [t for t, _ in steps] == [2, 1, 0]
    assert recorder.calls == ["eps 3", "eps 2", "eps 1"]


@pytest.mark.parametrize("name", NAMES)
def test_stopping_at_s_asks_nothing_of_later_times(name):
    recorder = Recorder()
    sample = bind(name, randn_like=recorder.randn_like)
    steps = sample(recorder.eps_theta, cosine(5), torch.zeros(1, 1, 2, 2))
    assert next(t for t, _ in steps if t == 3) == 3
    assert [call for call in recorder.calls if call != "noise"] == ["eps 5", "eps 4"]


def test_restart_noises_first_and_runs_r_steps():
    recorder = Recorder()
    sample = bind("ancestral", randn_like=recorder.randn_like)
    steps = restart(
        sample, recorder.eps_theta, cosine(9), torch.zeros(1, 1, 2, 2), 2,
        randn_like=recorder.randn_like,
    )  # fmt: skip
    assert [t for t, _ in steps] == [2, 1, 0]
    assert recorder.calls == ["noise", "eps 2", "noise", "eps 1"]


@pytest.mark.parametrize("r", [0, 10])
def test_restart_refuses_times_outside_the_schedule(r, randn_like):
    sample = bind("ddim", randn_like=randn_like)
    steps = restart(
        sample, DATA.eps_theta(cosine(9)), cosine(9), torch.zeros(1, 1, 2, 2), r,
        randn_like=randn_like,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"1\.\.9"):
        next(steps)


# Identities, for a network that is anything but ideal.


@pytest.fixture
def odd_network(generator):
    weight = torch.randn(6, 3, 1, 1, generator=generator, dtype=torch.float64)

    def eps_theta(x_t, t):
        return torch.nn.functional.conv2d(x_t, weight).tanh() + t.view(-1, 1, 1, 1) / 10

    return eps_theta


@pytest.mark.parametrize("clip", [True, False])
def test_ddim_with_eta_1_is_ancestral_with_small_variance(clip, odd_network, randn_like):
    x_T = randn_like(torch.empty(2, 3, 4, 4, dtype=torch.float64))
    noise = [randn_like(x_T) for _ in range(9)]

    def run(sampler):
        draws = iter(noise)
        return sampler(odd_network, cosine(10), x_T, randn_like=lambda _: next(draws), clip=clip)

    for (_, one), (_, other) in zip(
        run(ancestral), run(partial(ddim, stochasticity=ALL)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def states(name, network, x_T, noise, T=10, **how):
    draws = iter(noise)
    sample = bind(name, randn_like=lambda _: next(draws), **how)
    return list(sample(network, cosine(T), x_T))


@pytest.mark.parametrize(
    ("name", "k", "same"),
    [
        ("ddim", 0.0, "ddim"),
        ("dpm-solver++", 0.0, "dpm-solver++"),
        ("dpm-solver++", 1.0, "sde-dpm-solver++"),
    ],
)
def test_the_ends_of_stochasticity_are_the_samplers_to_the_bit(
    name, k, same, odd_network, randn_like
):
    x_T = randn_like(torch.empty(2, 3, 4, 4))
    noise = [randn_like(x_T) for _ in range(9)] if k else []
    network = lambda x, t: odd_network(x.double(), t)  # noqa: E731
    one = states(name, network, x_T, noise, stochasticity=[k] * 10)
    other = states(same, network, x_T, noise)
    assert all(torch.equal(x, y) for (_, x), (_, y) in zip(one, other, strict=True))


@pytest.mark.parametrize("name", ["ddim", "dpm-solver++"])
def test_stochasticity_counts_from_x_T_down(name, odd_network, randn_like):
    """The noise of the first step alone tells the first state apart; the last step has none."""
    x_T = randn_like(torch.empty(2, 3, 4, 4, dtype=torch.float64))
    zero = [torch.zeros_like(x_T)] * 9
    first = [torch.ones_like(x_T), *zero[1:]]
    for stochasticity, moved in (([0.5, *[0.0] * 9], True), ([0.0, *[0.5] * 9], False)):
        how = {"stochasticity": stochasticity}
        plain, other = (states(name, odd_network, x_T, noise, **how) for noise in (zero, first))
        assert bool((plain[0][1] != other[0][1]).any()) is moved
    only_last = states(name, odd_network, x_T, first, stochasticity=[*[0.0] * 9, 1.0])
    drawn = states(name, odd_network, x_T, zero, stochasticity=[0.0] * 10)
    torch.testing.assert_close(only_last[-1][1], drawn[-1][1], rtol=0, atol=0)


def test_what_a_step_of_ddim_draws_is_eta_squared_of_the_posterior(randn_like):
    """Song et al. 2021a, Eq. 16, with the eta of samplers.py's first words."""
    schedule, k = cosine(10), 0.3
    x_T = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    alpha_bar = schedule.alpha_bar
    snr = (alpha_bar / (1 - alpha_bar)).sqrt()
    h = float((snr[9] / snr[10]).log())
    eta_squared = (1 - math.exp(-2 * k * h)) / (1 - math.exp(-2 * h))
    network = lambda x, t: torch.zeros_like(x)  # noqa: E731
    noise = [torch.ones_like(x_T)] * 9
    (_, x_9), *_ = states("ddim", network, x_T, noise, stochasticity=[k] * 10)
    assert float(x_9) ** 2 == pytest.approx(eta_squared * float(schedule.beta_tilde[10]), rel=1e-9)


@pytest.mark.parametrize("name", ["ancestral", "sde-dpm-solver++"])
def test_samplers_with_a_stochasticity_of_their_own_take_no_other(name, randn_like):
    with pytest.raises(ValueError, match="of its own"):
        bind(name, randn_like=randn_like, stochasticity=[0.5])


@pytest.mark.parametrize("name", NAMES)
def test_the_last_step_returns_the_predicted_x_0(name, odd_network, randn_like):
    schedule, x_T = cosine(6), randn_like(torch.empty(2, 3, 4, 4, dtype=torch.float64))
    states = dict(bind(name, randn_like=randn_like)(odd_network, schedule, x_T))
    t = torch.tensor([1, 1])
    expected = predict_clipped_x_0(schedule, states[1], t, odd_network(states[1], t)[:, :3])
    torch.testing.assert_close(states[0], expected, rtol=1e-12, atol=1e-12)
    assert states[0].abs().max() <= 1


def test_one_step_is_a_prediction(odd_network, randn_like):
    schedule, x_T = spread_schedule(cosine(50), 1), randn_like(torch.empty(1, 3, 4, 4)).double()
    one = [list(bind(name, randn_like=no_noise)(odd_network, schedule, x_T)) for name in NAMES]
    assert [[t for t, _ in steps] for steps in one] == [[0]] * len(NAMES)
    for [(_, x_0)] in one[1:]:
        torch.testing.assert_close(one[0][0][1], x_0)


@pytest.mark.parametrize("stochastic", [False, True])
def test_dpm_solver_second_step_is_the_published_formula(stochastic, odd_network, randn_like):
    """Lu et al. 2022, Algorithm 2 and that for SDEs, with lambda, r and D as printed."""
    schedule, x_T = cosine(3), randn_like(torch.empty(2, 3, 4, 4)).double()
    noise = [randn_like(x_T) for _ in range(2)] if stochastic else [torch.zeros_like(x_T)] * 2
    draws = iter(noise)
    source = {"randn_like": lambda _: next(draws)} if stochastic else {}
    states = dict(dpm_solver_pp(odd_network, schedule, x_T, clip=False, **source))
    alpha = [a**0.5 for a in schedule.alpha_bar.tolist()]
    sigma = [(1 - a) ** 0.5 for a in schedule.alpha_bar.tolist()]
    lam = [math.inf, *(math.log(a / s) for a, s in zip(alpha[1:], sigma[1:], strict=True))]

    def x_theta(x, t):
        return (x - sigma[t] * odd_network(x, torch.tensor([t, t]))[:, :3]) / alpha[t]

    def step(x, t, h, D):
        if not stochastic:
            return sigma[t] / sigma[t + 1] * x - alpha[t] * (math.exp(-h) - 1) * D
        variance = sigma[t] ** 2 * (1 - math.exp(-2 * h))
        mean = sigma[t] / sigma[t + 1] * math.exp(-h) * x + alpha[t] * (1 - math.exp(-2 * h)) * D
        return mean + math.sqrt(variance) * noise[2 - t]

    first = x_theta(x_T, 3)
    h_1, h_2 = lam[2] - lam[3], lam[1] - lam[2]
    x_2 = step(x_T, 2, h_1, first)
    r = h_1 / h_2
    D = (1 + 1 / (2 * r)) * x_theta(x_2, 2) - 1 / (2 * r) * first
    x_1 = step(x_2, 1, h_2, D)
    torch.testing.assert_close(states[2], x_2)
    torch.testing.assert_close(states[1], x_1)


@pytest.mark.parametrize("schedule", [cosine(4000), linear(1000)], ids=["cosine", "linear"])
@pytest.mark.parametrize("steps", [10, 20, 50])
@pytest.mark.parametrize("scale", [0.3, 0.5, 1.0])
def test_dpm_solver_is_nearer_than_ddim_where_the_answer_is_known(
    schedule, steps, scale, randn_like
):
    """Pixels of N(0, scale^2): the flow multiplies x_T by scale, but for alpha_bar_T."""

    def ratio(name):
        few = spread_schedule(schedule, steps, sampler=name)

        def exact_eps(x, t):
            alpha_bar = few.alpha_bar[t[0]]
            return (1 - alpha_bar).sqrt() * x / (alpha_bar * scale**2 + 1 - alpha_bar)

        sample = bind(name, randn_like=randn_like, clip=False)
        x_T = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        return list(sample(exact_eps, few, x_T))[-1][1].item() / scale

    assert ratio("ddim") < ratio("dpm-solver++") < 1.01


def test_sde_dpm_solver_of_first_order_is_ancestral(odd_network, randn_like):
    """Two steps: the first has none before it, the last has lambda = infinity ahead."""
    x_T = randn_like(torch.empty(2, 3, 4, 4, dtype=torch.float64))
    noise = randn_like(x_T)
    one, other = (
        dict(sampler(odd_network, cosine(2), x_T, randn_like=lambda _: noise))
        for sampler in (ancestral, dpm_solver_pp)
    )
    for t in (1, 0):
        torch.testing.assert_close(one[t], other[t], rtol=1e-9, atol=1e-9)


def std_of(name, steps, scale, visit=()):
    """Return how wide pixels of N(0, scale^2) come out, of scale; exact, not drawn."""
    few = spread_schedule(cosine(4000), steps, visit, sampler=name)
    impulses = Impulses(few.T)
    sample = bind(name, randn_like=impulses.randn_like, clip=False)
    network = GaussianData(mean=0.0, std=scale).eps_theta(few)
    x_0 = list(sample(network, few, impulses.source()))[-1][1]
    return math.sqrt(impulses.moments(x_0)[1]) / scale


@pytest.mark.parametrize("steps", [10, 25, 50, 100])
@pytest.mark.parametrize("scale", [0.3, 0.5, 1.0])
def test_sde_dpm_solver_is_nearer_than_ancestral_where_the_answer_is_known(steps, scale):
    one, other = (abs(std_of(name, steps, scale) - 1) for name in ("sde-dpm-solver++", "ancestral"))
    assert one < 0.55 * other


@pytest.mark.parametrize("name", ["sde-dpm-solver++", "dpm-solver++"])
@pytest.mark.parametrize(
    ("steps", "visit"),
    [(25, (20,)), *product([25, 50], [(1,), (251, 501), (501, 1001)])],
)
def test_a_time_that_is_visited_beside_another_does_no_harm(name, steps, visit):
    """Predictions side by side differ by noise, which a step that reaches far would magnify."""
    plain, beside = std_of(name, steps, 0.3), std_of(name, steps, 0.3, visit)
    assert beside == pytest.approx(plain, abs=0.025)


def test_generators_and_images_of_float32_stay_float32(odd_network, randn_like):
    x_T = torch.zeros(1, 3, 4, 4)
    for name in NAMES:
        steps = bind(name, randn_like=randn_like)(
            lambda x_t, t: odd_network(x_t.double(), t), cosine(4), x_T
        )
        assert {x_t.dtype for _, x_t in steps} == {torch.float32}


# Respacing.


@pytest.mark.parametrize(
    ("name", "steps", "times"),
    [
        ("ancestral", 5, [0, 1, 1001, 2000, 3000, 4000]),
        ("ddim", 5, [0, 1, 1001, 2000, 3000, 4000]),
        ("dpm-solver++", 5, [0, 800, 1600, 2400, 3200, 4000]),
        ("sde-dpm-solver++", 5, [0, 800, 1600, 2400, 3200, 4000]),
        *[(name, 1, [0, 4000]) for name in NAMES],
    ],
)
def test_the_times_of_each_sampler(name, steps, times):
    """Both ends for steps of first order; for the solvers none that is short in lambda."""
    assert spread_schedule(cosine(4000), steps, sampler=name).times.tolist() == times


def test_schedule_with_visits_what_is_asked():
    schedule = spread_schedule(cosine(4000), 10, visit=(0, 101, 501, 4000))
    assert {1, 101, 501, 4000} <= set(schedule.times.tolist())
    assert schedule.T == 12
    assert schedule.alpha_bar[find_index(schedule, 501)] == cosine(4000).alpha_bar[501]
    assert find_index(schedule, 0) == 0


@pytest.mark.parametrize("steps", [None, 0, 20, 30])
def test_schedule_with_all_steps_changes_nothing(steps):
    schedule = cosine(20)
    assert spread_schedule(schedule, steps, visit=(3,)) is schedule


def test_times_beyond_the_schedule_and_unvisited_ones_are_refused():
    with pytest.raises(ValueError, match=r"1\.\.20"):
        spread_schedule(cosine(20), 5, visit=(21,))
    with pytest.raises(ValueError, match="17"):
        find_index(spread_schedule(cosine(20), 2), 17)
