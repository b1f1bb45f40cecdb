"""Mirrors cdm_cli/nets/blocks.py."""

import math

import pytest
import torch

from cdm_cli.nets import blocks, convolution, normalise
from cdm_cli.nets.blocks import (
    Activation,
    Attention,
    GroupNorm,
    ResBlock,
)
from cdm_cli.nets.modulation import compute_modulations
from tests.nets.drawing import randomised


def test_groups_divide_any_number_of_channels():
    assert GroupNorm(48).groups == 16
    assert GroupNorm(64).groups == 32
    assert GroupNorm(9).groups == 1


@pytest.mark.parametrize("rescale", [False, True])
def test_a_fresh_block_passes_its_input_through(rescale, generator):
    x, block = torch.randn(2, 8, 4, 4, generator=generator), ResBlock(8, 8, 16, rescale=rescale)
    (modulation,) = compute_modulations([block], torch.randn(2, 16, generator=generator))
    factor = math.sqrt(0.5) if rescale else 1.0
    assert torch.equal(block(Activation(x), modulation).x, x * factor)
    assert torch.equal(Attention(8, 2, rescale=rescale)(Activation(x)).x, x * factor)


@pytest.mark.parametrize(("resample", "side"), [("up", 8), ("down", 2), (None, 4)])
def test_a_block_changes_the_resolution_of_both_branches(resample, side):
    block = randomised(ResBlock(8, 16, 12, resample=resample))
    (modulation,) = compute_modulations([block], torch.randn(2, 12))
    assert block(Activation(torch.randn(2, 8, 4, 4)), modulation).x.shape == (2, 16, side, side)


@pytest.fixture
def fused(monkeypatch):
    """The path of a GPU, by the formulas of its operators."""
    for module in (blocks, convolution, normalise):
        monkeypatch.setattr(module, "is_fused", lambda x: True)


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("resample", ["up", "down", None])
def test_the_fused_block_is_the_plain_one(resample, generator, monkeypatch):
    block = randomised(ResBlock(24, 16, 12, groups=8, resample=resample), std=0.2)
    h = Activation(torch.randn(2, 24, 4, 6, generator=generator))
    (modulation,) = compute_modulations([block], torch.randn(2, 12, generator=generator))
    y = block(h, modulation).x
    for module in (blocks, convolution, normalise):
        monkeypatch.setattr(module, "is_fused", lambda x: False)
    torch.testing.assert_close(y, block(h, modulation).x, atol=1e-4, rtol=1e-4)


def test_dropout_only_trains(generator):
    block = randomised(ResBlock(8, 8, 4, dropout=0.5))
    h = Activation(torch.randn(2, 8, 4, 4, generator=generator))
    (modulation,) = compute_modulations([block], torch.randn(2, 4, generator=generator))
    assert not torch.equal(block(h, modulation).x, block(h, modulation).x)
    block.eval()
    assert torch.equal(block(h, modulation).x, block(h, modulation).x)


@pytest.mark.usefixtures("fused")
def test_dropout_of_the_fused_path_only_trains(generator):
    test_dropout_only_trains(generator)


@pytest.mark.usefixtures("fused")
def test_dropout_of_the_fused_path(generator):
    torch.manual_seed(0)
    norm = GroupNorm(64, 8)
    x = torch.randn(8, 64, 16, 16, generator=generator)
    whole = norm(x, silu=True)
    dropped = [norm(x, silu=True, dropout=0.25) for _ in range(2)]
    masks = [y != 0 for y in dropped]
    for y, mask in zip(dropped, masks, strict=True):
        assert abs(float(mask.double().mean()) - 0.75) < 0.005
        torch.testing.assert_close(y[mask], whole[mask] / 0.75)
    assert abs(float((masks[0] == masks[1]).double().mean()) - (0.75**2 + 0.25**2)) < 0.005


def by_formula(attention: Attention, x: torch.Tensor, heads: list[list[int]]) -> torch.Tensor:
    """softmax(q k / sqrt(d)) v for the rows of the projection that belong to each head."""
    B, C, H, W = x.shape
    tokens = attention.norm(x).flatten(2).double()
    projected = attention.qkv.weight.double() @ tokens + attention.qkv.bias.double()[:, None]
    mixed = []
    for rows in heads:
        q, k, v = projected[:, rows].chunk(3, dim=1)
        weights = (q.transpose(1, 2) @ k / math.sqrt(q.shape[1])).softmax(-1)
        mixed.append(v @ weights.transpose(1, 2))
    out = attention.out.weight.double() @ torch.cat(mixed, 1) + attention.out.bias.double()[:, None]
    return x + out.view(B, C, H, W)


def test_attention_in_both_orders_is_the_formula(generator):
    x = torch.randn(2, 8, 3, 4, generator=generator)
    legacy = [list(range(0, 12)), list(range(12, 24))]
    new = [
        [*range(0, 4), *range(8, 12), *range(16, 20)],
        [*range(4, 8), *range(12, 16), *range(20, 24)],
    ]
    for order, heads in ((False, legacy), (True, new)):
        attention = randomised(Attention(8, 2, new_order=order), std=0.5)
        assert torch.allclose(
            attention(Activation(x)).x.double(), by_formula(attention, x, heads), atol=1e-5
        )
