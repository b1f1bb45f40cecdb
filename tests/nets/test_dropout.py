"""Mirrors cdm_cli/nets/dropout.py; tests/nets/test_fused_norm.py compares the kernels with it."""

import math

import pytest
import torch

from cdm_cli.nets.dropout import dropped, kept, new_seed

SHAPE = torch.Size((4, 4096, 64))
NUM = SHAPE.numel()
SEED = 0x1234_5678_9ABC_DEF0


def mask(seed, dropout=0.5):
    """Return what is kept, as ones and zeros."""
    return (kept(torch.tensor([seed]), SHAPE, dropout) > 0).double().flatten()


def agreement(a, b):
    """Return how far the share of pairs that agree is from chance, in standard deviations."""
    p = float(a.mean()), float(b.mean())
    expected = p[0] * p[1] + (1 - p[0]) * (1 - p[1])
    share = float((a == b).double().mean())
    return abs(share - expected) / math.sqrt(expected * (1 - expected) / len(a))


@pytest.mark.parametrize("dropout", [0.1, 0.3, 0.9])
def test_what_is_kept_is_scaled_and_as_much_as_asked(dropout, generator):
    found = kept(new_seed(torch.device("cpu")), SHAPE, dropout)
    assert found.dtype == torch.float32
    assert set(found.unique().tolist()) == {0.0, torch.tensor(1 / (1 - dropout)).item()}
    deviation = math.sqrt(dropout * (1 - dropout) / NUM)
    assert abs(float((found == 0).double().mean()) - dropout) < 5 * deviation
    for part in (found.double().sum((1, 2)), found.double().sum((0, 1))):
        each = NUM / len(part)
        spread = (part * (1 - dropout) - each * (1 - dropout)).square().sum()
        chi_square = float(spread / (each * dropout * (1 - dropout)))
        assert abs(chi_square - len(part)) < 5 * math.sqrt(2 * len(part)), "each row, each channel"


def test_nothing_is_dropped_at_zero():
    assert dropped(0.0) == 0
    assert mask(SEED, 0.0).all()


@pytest.mark.parametrize("seed", [0, 1, SEED, 2**62 - 1])
@pytest.mark.parametrize("lag", [1, 2, 3, 64, 128, 4096 * 64])
def test_numbers_of_a_mask_know_nothing_of_each_other(seed, lag):
    for dropout in (0.5, 0.1):
        found = mask(seed, dropout)
        assert agreement(found[:-lag], found[lag:]) < 5


def test_masks_of_random_seeds_know_nothing_of_each_other(generator):
    seeds = torch.randint(2**62, (40,), generator=generator).tolist()
    masks = [mask(seed, 0.1) for seed in seeds]
    worst = max(agreement(a, b) for k, a in enumerate(masks) for b in masks[:k])
    assert worst < 5.5, "the largest of 780"


def test_a_seed_comes_from_the_default_generator_and_is_a_tensor_of_its_own():
    torch.manual_seed(3)
    first, second = (new_seed(torch.device("cpu")) for _ in range(2))
    assert first.shape == (1,)
    assert first.dtype == torch.int64
    assert first != second
    torch.manual_seed(3)
    assert torch.equal(new_seed(torch.device("cpu")), first)
