"""Mirrors cdm_cli/nets/kernels/dropout.py.

Tests/nets/kernels/test_fused_norm.py compares the kernels with it.
"""

import itertools
import math

import pytest
import torch

from cdm_cli.nets.kernels.dropout import dropout_mask, new_seed, threshold

SHAPE = torch.Size((4, 4096, 64))
NUM = SHAPE.numel()
SEEDS = [0, 1, 0x9ABC_DEF0, 2**32 - 1]
LARGEST = 6.5  # standard deviations; one of a million normal numbers reaches 4.9


def mask(seed, dropout=0.5):
    """Return what is kept, as numbers of mean 0 and variance 1 if it is by chance."""
    found = (dropout_mask(torch.tensor([seed]), SHAPE, dropout) > 0).double().flatten()
    return (found - (1 - dropout)) / math.sqrt(dropout * (1 - dropout))


def correlations(a, b):
    """Return those of all numbers of a with those of b some places on, in standard deviations.

    For 0, 1, … places, three quarters of all.
    """
    padded = (torch.cat([x, torch.zeros(NUM)]) for x in (a, b))
    of_a, of_b = map(torch.fft.rfft, padded)
    lags = torch.arange(NUM * 3 // 4)
    return torch.fft.irfft(of_a.conj() * of_b)[: len(lags)] / (NUM - lags).sqrt()


@pytest.mark.parametrize("dropout", [0.1, 0.3, 0.9])
def test_what_is_kept_is_scaled_and_as_much_as_asked(dropout):
    torch.manual_seed(0)
    found = dropout_mask(new_seed(torch.device("cpu")), SHAPE, dropout)
    assert found.dtype == torch.float32
    assert set(found.unique().tolist()) == {0.0, torch.tensor(1 / (1 - dropout)).item()}
    deviation = math.sqrt(dropout * (1 - dropout) / NUM)
    assert abs(float((found == 0).double().mean()) - dropout) < 5 * deviation


def by_formula(seed, shape, dropout):
    """The hash in integers that hold all products."""
    low = 2**32 - 1
    bits = torch.arange(shape.numel()).view(shape) & low
    bits = (((bits ^ (bits >> 17)) * 0xED5AD4BB) & low) ^ seed
    bits = ((bits ^ (bits >> 11)) * 0xAC4C1B51) & low
    bits = ((bits ^ (bits >> 15)) * 0x31848BAB) & low
    return (bits >= threshold(dropout)).float() / (1 - dropout)


@pytest.mark.parametrize("seed", [*SEEDS, 2**31 - 1, 2**31])
@pytest.mark.parametrize("dropout", [0.1, 0.9])
def test_words_of_32_bits_give_what_the_hash_says(seed, dropout):
    found = dropout_mask(torch.tensor([seed]), SHAPE, dropout)
    assert torch.equal(found, by_formula(seed, SHAPE, dropout))


def test_an_image_with_a_seed_of_its_own_knows_nothing_of_the_batch():
    seeds = torch.tensor(SEEDS)
    found = dropout_mask(seeds, SHAPE, 0.3)
    for image, seed in zip(found, SEEDS, strict=True):
        assert torch.equal(image[None], by_formula(seed, SHAPE[1:], 0.3)[None])
    assert torch.equal(dropout_mask(seeds[2:], torch.Size((2, *SHAPE[1:])), 0.3), found[2:])


def test_nothing_is_dropped_at_zero():
    assert threshold(0.0) == 0
    assert (dropout_mask(torch.tensor([7]), SHAPE, 0.0) == 1).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_no_number_of_a_mask_knows_of_another(seed, dropout):
    found = mask(seed, dropout)
    found = correlations(found, found)[1:]
    assert found.abs().max() < LARGEST
    assert abs(float(found.square().mean()) - 1) < 0.01


def test_masks_of_drawn_seeds_know_nothing_of_each_other(generator):
    seeds = torch.randint(2**32, (5,), generator=generator).tolist()
    masks = [mask(seed) for seed in seeds]
    for a, b in itertools.permutations(masks, 2):
        assert correlations(a, b).abs().max() < LARGEST


@pytest.mark.parametrize("bit", [0, 6, 12, 17])
def test_masks_of_two_seeds_are_not_the_same_numbers_in_another_order(bit):
    """A seed that joined before the first product would exchange places."""
    exchanged = mask(SEEDS[2] ^ (1 << bit)).view(-1, 2, 1 << bit).flip(1).flatten()
    assert abs(float((mask(SEEDS[2]) * exchanged).sum())) / math.sqrt(NUM) < LARGEST


def test_channels_and_pixels_keep_no_less_and_no_more_than_chance():
    """Sums over places that lie apart spread like those of independent numbers."""
    found = (dropout_mask(torch.tensor([SEEDS[2]]), torch.Size((64, 256, 768)), 0.1) > 0).double()
    for sums in (found.sum((0, 1)), found.sum((0, 2)), found.sum((1, 2))):
        each = found.numel() / len(sums)
        spread = float(sums.var() / (each * 0.1 * 0.9))
        assert abs(spread - 1) < 5 * math.sqrt(2 / len(sums))


def test_a_seed_comes_from_the_default_generator_and_is_a_tensor_of_its_own():
    torch.manual_seed(3)
    first, second = (new_seed(torch.device("cpu")) for _ in range(2))
    assert first.shape == (1,)
    assert first.dtype == torch.int64
    assert first != second
    torch.manual_seed(3)
    assert torch.equal(new_seed(torch.device("cpu")), first)
