"""Mirrors cdm_cli/diffusion/reverse.py: Section 2.1 as printed is the reference."""

import pytest
import torch

from cdm_cli.diffusion.process import gather, scale
from cdm_cli.diffusion.reverse import p_log_var, p_mean_log_var, predict_clipped_x_0, split_v
from cdm_cli.diffusion.schedules import cosine, linear, respace
from tests.oracles import GaussianData

TIMES = torch.tensor([1, 2, 50, 99, 100])
SCHEDULES = [cosine(100), linear(100)]


@pytest.fixture
def x_t(generator):
    return torch.randn(5, 3, 4, 4, generator=generator, dtype=torch.float64)


@pytest.fixture
def output(generator):
    return torch.randn(5, 6, 4, 4, generator=generator, dtype=torch.float64)


def log_var(schedule, v=None, fraction="centred", *, variance):
    return p_log_var(schedule, TIMES, v, variance=variance, fraction=fraction)


def test_split_v(output):
    eps, v = split_v(output, 3)
    assert torch.equal(torch.cat([eps, v], 1), output)
    eps, v = split_v(output, 6)
    assert eps.shape[1] == 6
    assert v is None


def test_split_v_refuses_other_channels(output):
    with pytest.raises(ValueError, match="6 channels"):
        split_v(output, 2)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_mean_is_the_printed_one(schedule, x_t, output):
    """mu_theta = (x_t - beta_t / sqrt(1 - alpha_bar_t) eps_theta) / sqrt(alpha_t)."""
    beta, alpha_bar = gather(schedule.beta, TIMES), gather(schedule.alpha_bar, TIMES)
    eps_part = scale(beta / (1 - alpha_bar).sqrt(), output[:, :3])
    printed = scale((1 - beta).rsqrt(), x_t - eps_part)
    got = p_mean_log_var(schedule, x_t, TIMES, output, variance="learned", clip=False)
    torch.testing.assert_close(got.mean, printed, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_clipping_bounds_the_mean(schedule, x_t):
    """With x_0 in [-1, 1] the mean is within reach of x_t; without, far outside at t = T."""
    eps = x_t + 0.01
    assert predict_clipped_x_0(schedule, x_t, TIMES, eps).abs().max() <= 1
    assert predict_clipped_x_0(cosine(4000), x_t, TIMES * 40, eps, clip=False).abs().max() > 100


def test_clipping_leaves_what_is_inside(x_t):
    schedule, inside = cosine(100), torch.zeros_like(x_t)
    torch.testing.assert_close(
        predict_clipped_x_0(schedule, inside, TIMES, inside, clip=True),
        predict_clipped_x_0(schedule, inside, TIMES, inside, clip=False),
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_fixed_variances(schedule):
    small, large = log_var(schedule, variance="small"), log_var(schedule, variance="large")
    assert torch.equal(small[1:].flatten(), schedule.beta_tilde[TIMES[1:]].log())
    assert torch.equal(large[1:].flatten(), schedule.beta[TIMES[1:]].log())
    assert small[0] == large[0] == schedule.beta_tilde[2].log()


@pytest.mark.parametrize(
    ("fraction", "v_low", "v_high"), [("centred", -1.0, 1.0), ("plain", 0.0, 1.0)]
)
def test_learned_variance_runs_from_beta_tilde_to_beta(fraction, v_low, v_high, x_t):
    schedule, one = linear(100), torch.ones_like(x_t)
    ends = [log_var(schedule, v * one, fraction, variance="learned") for v in (v_low, v_high)]
    beta = schedule.beta[TIMES].log().view(-1, 1, 1, 1)
    torch.testing.assert_close(ends[0], log_var(schedule, variance="small").expand_as(x_t))
    torch.testing.assert_close(ends[1], beta.expand_as(x_t))
    beyond = log_var(schedule, (v_high + 1) * one, fraction, variance="learned")
    assert (beyond > ends[1]).all()


def test_learned_variance_of_a_respaced_schedule_uses_its_own_beta(x_t):
    schedule = respace(cosine(4000), torch.tensor([1, 1000, 2000, 3000, 4000]))
    t = torch.tensor([1, 2, 3, 4, 5])
    got = p_log_var(schedule, t, torch.ones_like(x_t), variance="learned", fraction="centred")
    jump = 1 - schedule.alpha_bar[1:] / schedule.alpha_bar[:-1]
    torch.testing.assert_close(got[:, 0, 0, 0], jump.log())


def test_learned_variance_needs_v():
    with pytest.raises(ValueError, match="2C"):
        log_var(cosine(100), variance="learned")


@pytest.mark.parametrize("variance", ["learned", "small", "large"])
def test_low_precision_output_yields_the_precision_of_x_t(variance, x_t, output):
    p = p_mean_log_var(
        cosine(100), x_t.float(), TIMES, output.bfloat16(), variance=variance, clip=True
    )
    assert p.mean.dtype == p.log_var.dtype == torch.float32


def test_a_network_of_2c_channels_serves_fixed_variances(x_t, output):
    p = p_mean_log_var(cosine(100), x_t, TIMES, output, variance="small")
    q = p_mean_log_var(cosine(100), x_t, TIMES, output[:, :3], variance="small")
    assert torch.equal(p.mean, q.mean)
    assert torch.equal(p.log_var, q.log_var)


def test_ideal_network_gives_the_conditional_of_the_joint(x_t):
    """E and Var of x_{t-1} given x_t, from the covariance of the two alone."""
    data, schedule = GaussianData(0.3, 0.5), linear(100)
    p = p_mean_log_var(
        schedule, x_t, TIMES, data.with_v(schedule)(x_t, TIMES), variance="learned", clip=False
    )
    for b, t in enumerate(TIMES.tolist()):
        (mean, var), (prev, var_prev) = data.moments(schedule, t), data.moments(schedule, t - 1)
        slope = (1 - schedule.beta[t]).sqrt() * var_prev / var
        torch.testing.assert_close(p.mean[b], prev + slope * (x_t[b] - mean))
        expected = (var_prev - slope**2 * var).log()
        torch.testing.assert_close(p.log_var[b, 0, 0, 0], expected)
