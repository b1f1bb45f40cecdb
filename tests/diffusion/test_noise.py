"""Mirrors cdm_cli/diffusion/noise.py: Random123's known answers, then independence."""

import itertools

import pytest
import torch
from scipy import stats

from cdm_cli.diffusion.noise import Noise, box_muller, draw_integers, draw_normals, key, uniform_u32

FULL = 0xFFFFFFFF
KNOWN = [  # counter, key, answer: kat_vectors of Random123 for philox4x32-10
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((FULL, FULL, FULL, FULL), (FULL, FULL), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("counter", "words", "answer"), KNOWN)
def test_philox_known_answers(counter, words, answer, device):
    tensors = tuple(torch.tensor([c], device=device) for c in counter)
    assert tuple(w.item() for w in uniform_u32(words[0] | words[1] << 32, tensors)) == answer


def test_broadcast_counters_give_what_full_ones_give():
    shape = (3, 5)
    counter = [torch.randint(0, FULL, n) for n in ((1, 5), (3, 1), (3, 1), (1, 1))]
    full = tuple(c.expand(shape).clone() for c in counter)
    before = [c.clone() for c in counter]
    for lean, wide in zip(uniform_u32(7, tuple(counter)), uniform_u32(7, full), strict=True):
        assert torch.equal(lean, wide)
    assert all(torch.equal(c, b) for c, b in zip(counter, before, strict=True))


def test_words_are_uniform():
    block = torch.arange(50_000)
    zero = torch.zeros_like(block)
    for word in uniform_u32(key(1, "words"), (block, zero, zero, zero)):
        assert 0 <= word.min() < word.max() <= FULL
        assert stats.kstest(word.double() / 2**32, "uniform").pvalue > 1e-3
        for bit in range(32):
            assert (word >> bit & 1).double().mean() == pytest.approx(0.5, abs=0.012)


def test_extreme_words_are_finite_normals():
    low, high = torch.tensor([0, 0, FULL, FULL]), torch.tensor([0, FULL, 0, FULL])
    for x in box_muller(low, high):
        assert x.isfinite().all()
        assert x.abs().max() < 6.67


def test_normals_are_normal():
    """By moments, and by 50 Kolmogorov-Smirnov tests whose p-values must be uniform."""
    rows = draw_normals(key(0, "normal"), torch.arange(64), 0, 3072)
    p = [stats.kstest(row.double(), "norm").pvalue for row in rows[:50]]
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    x = rows.flatten()
    assert x.mean().item() == pytest.approx(0, abs=0.01)
    assert x.var().item() == pytest.approx(1, abs=0.015)
    assert (x**4).mean().item() == pytest.approx(3, abs=0.1)
    beyond_3 = (x.abs() > 3).double().mean().item()
    assert beyond_3 == pytest.approx(0.0027, abs=0.0005)


def test_normals_of_one_image_are_uncorrelated():
    """Neighbours, and the four normals that share one counter."""
    x = draw_normals(key(0, "pairs"), torch.arange(256), 0, 1024)
    for lag in (1, 2, 256, 512, 768):
        correlation = (x[:, lag:] * x[:, :-lag]).mean().item()
        assert correlation == pytest.approx(0, abs=0.012)
        squares = ((x[:, lag:] ** 2 - 1) * (x[:, :-lag] ** 2 - 1)).mean().item()
        assert squares == pytest.approx(0, abs=0.03)


def test_seeds_stages_ids_and_steps_are_unrelated():
    choices = itertools.product((0, 1), ("base", "sr"), (0, 1, 1 << 32), (0, 1))
    rows = []
    for seed, stage, number, step in choices:
        noise = Noise(seed, stage, torch.tensor([number]))
        noise.skip_to(step)
        rows.append(noise(torch.empty(1, 1, 100, 100)).flatten())
    x = torch.stack(rows)
    correlation = x @ x.T / x.shape[1] - torch.eye(len(x))
    assert len(x) == 24
    assert correlation.abs().max() < 0.06


def test_sample_i_is_the_same_in_any_batch():
    ids = torch.tensor([5, 0, -3, 2**62 + 1, 17])
    x = torch.empty(5, 3, 7, 5)  # 105 values: not a multiple of four
    together = Noise(3, "base", ids)
    draws = [together(x) for _ in range(3)]
    order = torch.tensor([4, 1, 3, 0, 2])
    shuffled = Noise(3, "base", ids[order])
    for draw in draws:
        assert torch.equal(shuffled(x), draw[order])
    for i in range(5):
        alone = Noise(3, "base", ids[i : i + 1])
        alone.skip_to(2)
        assert torch.equal(alone(x[:1])[0], draws[2][i])


def test_each_call_is_a_new_step():
    noise, x = Noise(0, "base", torch.arange(2)), torch.empty(2, 1, 4, 4)
    first, second = noise(x), noise(x)
    assert noise.step == 2
    assert not torch.equal(first, second)
    noise.skip_to(0)
    assert torch.equal(noise(x), first)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_types_are_float32_rounded(dtype):
    x = torch.empty(2, 1, 4, 4)
    as_float32 = Noise(0, "base", torch.arange(2))(x)
    got = Noise(0, "base", torch.arange(2))(x.to(dtype))
    assert torch.equal(got, as_float32.to(dtype))


def test_keys_depend_on_both_and_do_not_run_together():
    keys = {key(seed, stage) for seed in (0, 1, 10) for stage in ("", "0", "base", "base/z_s")}
    assert len(keys) == 12
    assert all(0 <= k < 2**64 for k in keys)
    digest = "d310357240ede20b"  # sha256sum of 0, a zero byte and base; stored samples rest on it
    assert key(0, "base").to_bytes(8, "little").hex() == digest


def test_a_batch_of_another_size_is_refused():
    with pytest.raises(ValueError, match="3 images, but noise for 2"):
        Noise(0, "base", torch.arange(2))(torch.empty(3, 1, 2, 2))


def test_integers_are_uniform_within_their_sizes():
    ids, sizes = torch.arange(20_000), torch.tensor([1, 2, 10, 4000])
    draws = draw_integers(key(0, "t"), ids, sizes)
    assert draws.shape == (20_000, 4)
    assert torch.equal(draws.max(0).values + 1, sizes)
    assert torch.equal(draws.min(0).values, torch.zeros(4, dtype=torch.int64))
    tenths = torch.bincount(draws[:, 2]) / 20_000
    torch.testing.assert_close(tenths, torch.full((10,), 0.1), rtol=0, atol=0.01)
    assert torch.equal(draw_integers(key(0, "t"), ids[7:9], sizes), draws[7:9])


@needs_cuda
def test_cuda_has_the_words_of_the_cpu():
    counter = tuple(torch.randint(0, FULL, (1000,)) for _ in range(4))
    here = uniform_u32(99, counter)
    there = uniform_u32(99, tuple(c.cuda() for c in counter))
    for word, other in zip(here, there, strict=True):
        assert torch.equal(word, other.cpu())
    x, ids = torch.empty(4, 3, 32, 32), torch.arange(4)
    torch.testing.assert_close(Noise(0, "a", ids)(x), Noise(0, "a", ids)(x.cuda()).cpu())
