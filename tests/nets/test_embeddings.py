"""Mirrors cdm_cli/nets/embeddings.py."""

import math

import pytest
import torch

from cdm_cli.nets.embeddings import NumberEmbedding, embed_sinusoidally


def test_cosines_then_sines_of_geometric_frequencies():
    t = torch.tensor([0.0, 1.0, 37.5, 4000.0])
    embedded = embed_sinusoidally(t, 8)
    for row, time in zip(embedded, t.tolist(), strict=True):
        angles = [time * 10_000 ** (-k / 4) for k in range(4)]
        wanted = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        assert row.tolist() == pytest.approx(wanted, abs=3e-4)


def test_an_odd_dimension_ends_with_a_zero():
    embedded = embed_sinusoidally(torch.tensor([3.0]), 7)
    assert embedded.shape == (1, 7)
    assert embedded[0, -1] == 0
    assert torch.equal(embedded[:, :6], embed_sinusoidally(torch.tensor([3.0]), 6))


def test_a_raw_root_of_alpha_bar_hardly_moves_but_a_scaled_one_does():
    """Numbers within [0, 1] must be scaled before they are embedded (Section 4.4)."""
    roots = torch.tensor([0.95, 0.96])
    raw = embed_sinusoidally(roots, 128).diff(dim=0).norm()
    scaled = embed_sinusoidally(1000 * roots, 128).diff(dim=0).norm()
    assert raw < 0.03
    assert scaled > 5


def test_float64_times_and_half_weights_are_welcome():
    module = NumberEmbedding(16, 32).to(torch.bfloat16)
    assert module(torch.tensor([5.0], dtype=torch.float64)).dtype == torch.bfloat16
