"""Mirrors cdm_cli/nets/unet.py and layout.py."""

import pytest
import torch
from pydantic import ValidationError

from cdm_cli.config import ModelConfig, StageConfig
from cdm_cli.nets.counting import count_parameters
from cdm_cli.nets.layout import plan_down, plan_up
from cdm_cli.nets.unet import UNet
from cdm_cli.presets import PRESETS
from tests.nets.drawing import inputs, randomised, tiny

MILLIONS = {
    "imagenet-base32": 792,
    "imagenet-sr32-64": 718,  # 717 without the embedding of s
    "imagenet-sr64-128": 536,
    "imagenet-sr64-256": 589,
}


def of_preset(name: str) -> UNet:
    stage = PRESETS[name].stage
    conditioning = stage.conditioning
    with torch.device("meta"):
        return UNet(
            stage.model,
            out_channels=6 if stage.variance == "learned" else 3,
            conditioned=conditioning is not None,
            embeds_s=conditioning is not None and conditioning.gaussian,
        )


@pytest.mark.parametrize(
    "name", [name for name in PRESETS if isinstance(PRESETS[name].stage, StageConfig)]
)
def test_no_preset_hides_the_mean_colour_in_groups_of_one_channel(name):
    last = of_preset(name).norm_out
    assert last.groups < len(last.weight)


@pytest.mark.parametrize("name", MILLIONS)
def test_the_presets_of_appendix_b_have_the_published_size(name):
    assert round(count_parameters(of_preset(name)) / 1e6) == MILLIONS[name]


def test_the_embedding_of_s_is_all_that_a_plain_sr_stage_lacks():
    net = of_preset("imagenet-sr32-64")
    assert net.embed_s is not None
    assert round((count_parameters(net) - count_parameters(net.embed_s)) / 1e6) == 717


@pytest.mark.parametrize("updown", [False, True])
@pytest.mark.parametrize("scale_shift", [False, True])
@pytest.mark.parametrize("order", ["legacy", "new"])
@pytest.mark.parametrize("rescale", [False, True])
def test_every_variant_runs_forward_and_backward(updown, scale_shift, order, rescale):
    net = tiny(
        resblock_updown=updown, scale_shift=scale_shift, qkv_order=order, skip_rescale=rescale
    )
    output = net(*inputs(net))
    assert output.shape == (2, 6, 16, 16)
    assert output.isfinite().all()
    output.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_a_fresh_network_returns_zero():
    """Zero-initialised output: eps_theta = 0 and v = 0 before training."""
    config = ModelConfig(resolution=8, base_channels=16, channel_mult=(1, 2), num_res_blocks=1)
    net = UNet(config, out_channels=3, conditioned=False, embeds_s=False)
    assert torch.equal(net(torch.randn(1, 3, 8, 8), torch.ones(1)), torch.zeros(1, 3, 8, 8))


def test_forward_is_prepare_then_denoise():
    net = tiny()
    x_t, t, z_s, s, y = inputs(net)
    condition = net.prepare(z_s, s, y)
    assert torch.equal(net.denoise(x_t, t, condition), net(x_t, t, z_s, s, y))


@pytest.mark.parametrize("changed", range(5))
def test_every_input_matters(changed):
    net = tiny().eval()
    before = inputs(net)
    after = list(before)
    after[changed] = before[changed].flip(0)
    with torch.no_grad():
        assert not torch.allclose(net(*before), net(*after), atol=1e-4)


def test_examples_of_a_batch_do_not_touch_each_other():
    net = tiny().eval()
    everything = inputs(net, num=3)
    with torch.no_grad():
        whole = net(*everything)
        alone = net(*(value[1:2] for value in everything))
    assert torch.allclose(whole[1:2], alone, atol=1e-5)


def test_gradient_checkpointing_changes_nothing_but_memory():
    net, gradients = tiny(), []
    for checkpointed in (False, True):
        net.gradient_checkpointing = checkpointed
        net.zero_grad()
        net(*inputs(net)).square().mean().backward()
        gradients.append([p.grad.clone() for p in net.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_channels_last_is_the_same_network():
    net = tiny().eval()
    x_t, *rest = inputs(net)
    with torch.no_grad():
        plain = net(x_t, *rest)
        net.to(memory_format=torch.channels_last)
        last = net(x_t.contiguous(memory_format=torch.channels_last), *rest)
    assert torch.allclose(plain, last, atol=1e-5)
    assert last.is_contiguous(memory_format=torch.channels_last)


def test_heads_as_a_count_or_as_a_width():
    count, width = tiny(num_heads=2), tiny(head_channels=16)
    assert [m.num_heads for m in count.modules() if hasattr(m, "num_heads")] == [2] * 4
    assert {m.num_heads for m in width.modules() if hasattr(m, "num_heads")} == {4}
    assert isinstance(randomised(width), UNet)


def test_the_plan_of_cells():
    config = tiny().config
    assert [plan.resize for plan in plan_down(config)] == [None, "down", None]
    assert [plan.resize for plan in plan_up(config)] == [None, "up", None, None]
    assert [plan.has_attention for plan in plan_up(config)] == [True, True, False, False]
    assert [plan.channels_in for plan in plan_up(config)] == [128, 96, 96, 64]


def test_a_trunk_of_half_precision_is_close_to_float32():
    """Weights of convolutions and projections rounded once; embeddings and output float32."""
    net = tiny().eval()
    x_t, t, z_s, s, y = inputs(net)
    with torch.no_grad():
        exact = net(x_t, t, z_s, s, y)
        for name, module in net.named_modules():
            if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)) and not name.startswith(
                ("embed_", "conv_out")
            ):
                module.to(torch.bfloat16)
        rounded = net(x_t, t, z_s, s, y)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.02


def test_autocast_is_close_to_float32():
    net = tiny().eval()
    with torch.no_grad():
        exact = net(*inputs(net))
        with torch.autocast("cpu", torch.bfloat16):
            rounded = net(*inputs(net)).float()
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.02


def test_a_level_narrower_than_the_base():
    """channel_mult may be a fraction: 0.5, 1, 1, 2, 2, 4, 4 at 512 (Dhariwal & Nichol 2021)."""
    net = tiny(channel_mult=(0.5, 1), norm_groups=8)
    assert net.conv_in.out_channels == 16
    assert net(*inputs(net)).shape == (2, 6, 16, 16)


@pytest.mark.parametrize(
    "heads",
    [
        {"num_heads": 3},
        {"head_channels": 48},
        {"base_channels": 9, "attention_resolutions": (16,)},
    ],
)
def test_heads_that_do_not_divide_the_channels(heads):
    with pytest.raises(ValidationError, match="do not divide"):
        tiny(**{"num_heads": 2, **heads})
