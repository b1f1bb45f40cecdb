"""Mirrors cdm_cli/nets/modulation.py."""

import torch
import torch.nn.functional as F

from cdm_cli.nets.blocks import Activation, ResBlock
from cdm_cli.nets.modulation import compute_modulations
from tests.nets.drawing import randomised


def blocks(*, scale_shift):
    sizes = [(8, 16), (16, 16), (16, 24)]
    return [randomised(ResBlock(*size, 12, groups=4, scale_shift=scale_shift)) for size in sizes]


def by_formula(block, x, emb):
    """A block, written out for each layer in float64; the embedding goes through its own layer."""
    block = block.double()
    h = block.conv_1(F.silu(F.group_norm(x, 4, block.norm_1.weight, block.norm_1.bias)))
    made = block.modulation(emb)[:, :, None, None]
    if block.scale_shift:
        scale, shift = made.chunk(2, dim=1)
        h = F.group_norm(h, 4, block.norm_2.weight, block.norm_2.bias) * (1 + scale) + shift
    else:
        h = F.group_norm(h + made, 4, block.norm_2.weight, block.norm_2.bias)
    return block.skip(x) + block.conv_2(F.silu(h))


def checked(scale_shift, generator):
    emb = torch.randn(3, 12, generator=generator)
    several = blocks(scale_shift=scale_shift)
    for block, modulation in zip(several, compute_modulations(several, emb), strict=True):
        assert all(part is None or part.is_contiguous() for part in modulation)
        x = torch.randn(3, block.norm_1.weight.numel(), 4, 4, generator=generator)
        ours = block(Activation(x), modulation).x.double()
        assert torch.allclose(ours, by_formula(block, x.double(), emb.double()), atol=1e-5)


def test_adagn_is_norm_times_one_plus_scale_plus_shift(generator):
    checked(True, generator)


def test_without_adagn_the_embedding_is_added_before_the_norm(generator):
    checked(False, generator)


def test_rounded_weights_round_no_norm(generator):
    """In bfloat16 the layers compute, the gain and the offset are float32 all the same."""
    several = blocks(scale_shift=True)
    emb = torch.randn(3, 12, generator=generator)
    exact = compute_modulations(several, emb)
    for block in several:
        block.modulation.to(torch.bfloat16)
    for rounded, wanted in zip(compute_modulations(several, emb), exact, strict=True):
        for ours, plain in zip(rounded[:2], wanted[:2], strict=True):
            assert ours.dtype == torch.float32
            assert torch.allclose(ours, plain, atol=2e-2)
