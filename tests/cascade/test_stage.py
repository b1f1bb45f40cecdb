"""Mirrors cdm_cli/cascade/stage.py: what the network is fed, and what its loss is made of."""

import pytest
import torch

from cdm_cli.cascade.draws import draw
from cdm_cli.cascade.stage import Stage, uses_bf16
from cdm_cli.config import ConditioningConfig, StageConfig
from cdm_cli.data.batches import TrainBatch
from cdm_cli.data.pixels import from_uint8
from cdm_cli.diffusion import augment, losses
from cdm_cli.diffusion.process import q_sample, q_sample_at
from cdm_cli.diffusion.reverse import split_v
from cdm_cli.diffusion.schedules import cosine, from_alpha_bar, respace
from tests.tiny import CLASSES, COSINE, base_config, continuous_config, net_of, sr_config, stage_of

B = 4


def batch_of(config, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def pixels(side):
        return torch.randint(0, 256, (B, 3, side, side), generator=generator, dtype=torch.uint8)

    low = config.conditioning.resolution if config.conditioning else None
    return TrainBatch(pixels(config.model.resolution), low and pixels(low), torch.arange(B) % 3)


class Spy(torch.nn.Module):
    """Records what the network is called with."""

    def __init__(self, net):
        super().__init__()
        self.net, self.calls, self.denoise = net, [], net.denoise
        self.embed_s = net.embed_s

    def forward(self, *inputs):
        self.calls.append(inputs)
        return self.net(*inputs)


def draw_for(stage, batch, generator, num, *, flip):
    return draw(stage.config, batch, generator, num, flip=flip, dropouts=0)


def spied(config):
    spy = Spy(net_of(config))
    return Stage(config, CLASSES, spy), spy  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("changes", "alpha_bar", "time", "fed"),
    [
        ({}, 0.5, 7, 7.0),
        ({"rescale_time": True}, 0.5, 7, 7 * 1000 / 20),
        ({"time_offset": -1}, 0.5, 7, 6.0),
        ({"time_input": "sqrt_alpha_bar"}, 0.25, 7, 500.0),
        ({"time_input": "alpha_bar"}, 0.25, 7, 250.0),
        ({"time_input": "log_snr"}, 0.5, 7, 0.0),
        ({"time_input": "log_snr"}, 1.0, 7, 20.0),
    ],
)
def test_time_input(changes, alpha_bar, time, fed):
    config = StageConfig.model_validate(base_config().model_dump() | changes)
    level = torch.tensor([alpha_bar], dtype=torch.float64)
    assert stage_of(config).compute_time_input(level, torch.tensor([time])).tolist() == [fed]


def test_s_input_is_rescaled_by_its_own_T():
    plain = sr_config()
    assert stage_of(plain).compute_s_input(torch.tensor([3, 20])).tolist() == [3.0, 20.0]
    rescaled = plain.model_copy(update={"rescale_time": True})
    assert stage_of(rescaled).compute_s_input(torch.tensor([3, 20])).tolist() == [150.0, 1000.0]
    assert stage_of(continuous_config()).compute_s_input(torch.tensor([0])) is None


def test_respaced_schedule_feeds_the_original_times():
    stage, y = stage_of(base_config()), torch.zeros(B, dtype=torch.long)
    x = torch.randn(B, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    few = stage.eps_theta(respace(stage.schedule, torch.tensor([5, 20])), y)
    every = stage.eps_theta(stage.schedule, y)
    assert torch.equal(few(x, torch.full((B,), 1)), every(x, torch.full((B,), 5)))
    assert torch.equal(few(x, torch.full((B,), 2)), every(x, torch.full((B,), 20)))


def test_foreign_schedule_feeds_its_own_noise_level():
    stage = stage_of(continuous_config())
    z = torch.zeros(B, 3, 8, 8)
    x = torch.randn(B, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    y, t = torch.zeros(B, dtype=torch.long), torch.full((B,), 1)
    own = stage.eps_theta(stage.schedule, y, z)
    level = stage.schedule.alpha_bar[17:18]
    foreign = stage.eps_theta(from_alpha_bar(level), y, z)
    assert torch.equal(foreign(x, t), own(x, torch.full((B,), 17)))


def test_eps_theta_equals_the_whole_network_and_computes_the_condition_once(monkeypatch):
    stage = stage_of(sr_config())
    x, z = torch.randn(B, 3, 16, 16), torch.randn(B, 3, 8, 8)
    y, s, t = torch.arange(B) % 3, torch.full((B,), 4), torch.full((B,), 9)
    calls = []
    prepare = stage.net.prepare
    monkeypatch.setattr(stage.net, "prepare", lambda *a: calls.append(1) or prepare(*a))
    eps_theta = stage.eps_theta(stage.schedule, y, z, s)
    first, second = eps_theta(x, t), eps_theta(x, t)
    assert len(calls) == 1
    assert torch.equal(first, second)
    assert torch.equal(first, stage.net(x, t.float(), z, s.float(), y))


def test_compute_losses_a_base_stage_is_the_hybrid_compute_losses_what_it_drew():
    stage, spy = spied(base_config())
    batch = batch_of(stage.config)
    draws = draw_for(stage, batch, torch.Generator().manual_seed(5), len(batch.y), flip=True)
    loss = stage.compute_losses(batch, draws)
    (x_0,) = augment.flip(draws.flip, from_uint8(batch.x_0))
    x_t, time, z_s, s, y, _ = spy.calls[0]
    assert torch.equal(x_t, q_sample(stage.schedule, x_0, draws.t, draws.eps))
    assert torch.equal(time, draws.t.float())
    assert (z_s, s) == (None, None)
    assert torch.equal(y, batch.y)
    output = spy.net(*spy.calls[0])
    expected = losses.hybrid(stage.schedule, x_0, x_t, draws.t, draws.eps, output)
    assert torch.equal(loss, expected)
    assert loss.shape == (B,)


def test_super_resolution_noises_the_flipped_z_0_at_low_resolution():
    stage, spy = spied(sr_config())
    batch = batch_of(stage.config)
    draws = draw_for(stage, batch, torch.Generator().manual_seed(5), len(batch.y), flip=True)
    stage.compute_losses(batch, draws)
    _, _, z_s, s, _, _ = spy.calls[0]
    (z_0,) = augment.flip(draws.flip, from_uint8(batch.z_0))
    assert z_s.shape == (B, 3, 8, 8)
    assert torch.equal(z_s, q_sample(stage.z_schedule, z_0, draws.s, draws.eps_z))
    assert torch.equal(s, draws.s.float())
    assert 0 < draws.flip.sum() < B, "the seed must flip some and not all"


def test_blur_comes_before_noise():
    conditioning = ConditioningConfig(
        resolution=8, z_schedule=COSINE, blur=True, blur_probability=1.0
    )
    stage, spy = spied(sr_config(conditioning=conditioning))
    batch = batch_of(stage.config)
    draws = draw_for(stage, batch, torch.Generator().manual_seed(5), len(batch.y), flip=False)
    stage.compute_losses(batch, draws)
    blurred = augment.blur(from_uint8(batch.z_0), draws.sigma, draws.blurred)
    assert torch.equal(spy.calls[0][2], q_sample(stage.z_schedule, blurred, draws.s, draws.eps_z))


def test_continuous_stage_is_fed_a_level_within_its_segment():
    stage, spy = spied(continuous_config())
    batch = batch_of(stage.config)
    draws = draw_for(stage, batch, torch.Generator().manual_seed(5), len(batch.y), flip=False)
    loss = stage.compute_losses(batch, draws)
    x_t, root, z_s, s, _, _ = spy.calls[0]
    roots = 1000 * stage.schedule.alpha_bar.sqrt()
    assert bool((root.double() >= roots[draws.t] - 1e-3).all())
    assert bool((root.double() <= roots[draws.t - 1] + 1e-3).all())
    assert bool((root.double() - roots[draws.t]).abs().max() > 1e-3), "not the table itself"
    alpha_bar = augment.continuous_alpha_bar(stage.schedule, draws.t, draws.u)
    assert torch.equal(x_t, q_sample_at(alpha_bar, from_uint8(batch.x_0), draws.eps))
    assert s is None
    assert torch.equal(z_s, augment.blur(from_uint8(batch.z_0), draws.sigma, draws.blurred))
    eps_theta, _ = split_v(spy.net(*spy.calls[0]), 3)
    assert torch.equal(loss, losses.simple(draws.eps, eps_theta))


def test_vlb_is_the_whole_bound_from_one_term():
    stage = stage_of(base_config().model_copy(update={"loss": "vlb"}))
    batch = batch_of(stage.config)
    draws = draw_for(stage, batch, torch.Generator().manual_seed(5), len(batch.y), flip=False)
    x_0 = from_uint8(batch.x_0)
    x_t = q_sample(stage.schedule, x_0, draws.t, draws.eps)
    output = stage.net(x_t, draws.t.float(), None, None, batch.y)
    term = losses.vlb(stage.schedule, x_0, x_t, draws.t, output, variance="learned")
    assert torch.equal(stage.compute_losses(batch, draws), 20 * term)


def test_t_covers_1_to_T_and_nothing_else():
    stage = stage_of(base_config())
    generator = torch.Generator().manual_seed(0)
    batch = batch_of(stage.config)
    draws = (draw_for(stage, batch, generator, len(batch.y), flip=False) for _ in range(200))
    seen = {t for drawn in draws for t in drawn.t.tolist()}
    assert seen == set(range(1, 21))


@pytest.mark.parametrize("config", [base_config(), sr_config(), continuous_config()])
def test_the_compute_losses_parts_adds_up_to_the_compute_losses_the_batch(config):
    stage, batch = stage_of(config), batch_of(config)
    draws = draw_for(stage, batch, torch.Generator().manual_seed(5), len(batch.y), flip=True)
    apart = []
    for rows in (slice(0, 1), slice(1, 4)):
        part, its_draws = (
            type(t)(*(x if x is None else x[rows] for x in t)) for t in (batch, draws)
        )
        apart.append(stage.compute_losses(part, its_draws))
    torch.testing.assert_close(torch.cat(apart), stage.compute_losses(batch, draws))


def test_unconditional_stage_takes_no_label():
    config = base_config(num_classes=0)
    stage, spy = spied(config)
    batch = batch_of(config)
    draws = draw_for(stage, batch, torch.Generator().manual_seed(0), len(batch.y), flip=False)
    stage.compute_losses(batch, draws)
    assert spy.calls[0][4] is None


def test_bf16_only_where_asked_for_or_on_cuda():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [uses_bf16(p, cpu) for p in ("auto", "fp32", "bf16")] == [False, False, True]
    assert [uses_bf16(p, cuda) for p in ("auto", "fp32", "bf16")] == [True, False, True]


def test_bf16_is_close_and_returns_float32():
    config = base_config()
    x, y, t = torch.randn(B, 3, 8, 8), torch.zeros(B, dtype=torch.long), torch.full((B,), 9)
    plain = stage_of(config)
    half = Stage(config, CLASSES, net_of(config), precision="bf16")
    exact = plain.eps_theta(plain.schedule, y)(x, t)
    rounded = half.eps_theta(half.schedule, y)(x, t)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, atol=0.1, rtol=0.1)


def test_schedules_are_those_of_the_configuration():
    stage = stage_of(sr_config())
    assert torch.equal(stage.schedule.alpha_bar, cosine(20).alpha_bar)
    assert stage.z_schedule is not None
    assert stage_of(base_config()).z_schedule is None


def test_another_evaluator_is_of_a_copy_with_the_same_weights():
    stage, released = stage_of(base_config()), []
    other = stage.with_denoise(lambda x_t, t, condition: 2 * x_t, lambda: released.append(1))
    assert other.net is stage.net
    x_t, t = torch.randn(2, 3, 8, 8), torch.tensor([1, 2])
    assert torch.equal(other.eps_theta(other.schedule, torch.arange(2))(x_t, t), 2 * x_t)
    assert stage.denoise == stage.net.denoise
    stage.release()
    assert not released
    other.release()
    assert released == [1]
