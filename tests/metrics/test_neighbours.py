"""Mirrors cdm_cli/metrics/neighbours.py."""

import pytest
import torch

from cdm_cli.metrics import neighbours
from cdm_cli.metrics.neighbours import Nearest, distances, prdc, radii


def on_a_line(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_distances(generator):
    x, y = torch.randn(2, 9, 5, generator=generator, dtype=torch.float64)
    expected = (x[:, None] - y[None]).norm(dim=2)
    torch.testing.assert_close(distances(x, y), expected, rtol=1e-12, atol=1e-7)
    assert distances(x, x).diagonal().max() < 1e-7


def test_radii_are_those_of_other_points():
    assert radii(on_a_line(0, 1, 3, 7), (1, 2)).tolist() == [[1, 1, 2, 4], [3, 2, 3, 6]]


def test_scores_counted_by_hand():
    """Real: 0, 1, 2, 10 with 1-neighbourhoods of radius 1, 1, 1, 8; samples: 0.5, 1.5, 50, 51."""
    scores = prdc(on_a_line(0.5, 1.5, 50, 51), on_a_line(0, 1, 2, 10), k=1, k_density=1)
    assert scores.precision.mean == 0.5  # 0.5 and 1.5; 50 and 51 are 40 away from 10
    assert scores.recall.mean == 0.75  # samples reach 1 to each side: 0, 1, 2 are inside
    # 0.5 lies near 0 and 1; 1.5 near 1 and 2; neither nearer than 8 to 10 (9.5, 8.5)
    assert scores.density.mean == 1.0
    assert scores.coverage.mean == 0.75


def test_equal_distributions_score_high_and_distant_ones_zero(generator):
    x, y = torch.randn(2, 500, 4, generator=generator)
    near, far = prdc(x, y), prdc(x, y + 20)
    assert min(near.precision.mean, near.recall.mean, near.coverage.mean) > 0.85
    assert near.density.mean == pytest.approx(1, abs=0.1)
    assert [score.mean for score in far[:4]] == [0, 0, 0, 0]
    assert near.precision.std == pytest.approx(0.015, abs=0.01)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_equal_images_have_no_inside_for_density_and_coverage(value):
    """As in the code of Naeem et al., who compare with <; that of Kynkäänniemi et al. has <=."""
    same = torch.full((25, 8), value)
    scores = prdc(same, same)
    assert scores.alike == 25
    assert prdc(same, torch.arange(25.0)[:, None].expand(25, 8)).alike == 0


def test_blocks_do_not_matter(generator, monkeypatch):
    x, y = torch.randn(2, 60, 4, generator=generator)
    whole = prdc(x, y)
    monkeypatch.setattr(neighbours, "ROWS", 7)
    assert prdc(x, y) == whole


def test_too_few_are_refused():
    with pytest.raises(ValueError, match="5 neighbours"):
        prdc(torch.zeros(5, 2), torch.zeros(9, 2))


def test_nearest_finds_copies_in_a_stream(generator):
    training = torch.randn(50, 6, generator=generator)
    queries = training[[3, 41]] + 1e-4
    nearest = Nearest(queries, 3)
    for start in range(0, 50, 8):
        batch = training[start : start + 8]
        nearest.add(batch, torch.arange(start, start + len(batch)) + 100)
    expected = torch.cdist(queries.double(), training.double()).topk(3, largest=False)
    assert torch.equal(nearest.ids, expected.indices + 100)
    torch.testing.assert_close(nearest.distances, expected.values, rtol=1e-6, atol=1e-8)
    assert nearest.ids[:, 0].tolist() == [103, 141]


def test_equal_images_are_equal_however_their_distance_is_rounded(generator):
    """Differences of large numbers leave some 1e-8 of them, above or below one another."""
    x = (100 * torch.randn(1, 48, generator=generator) + 37).repeat(25, 1)
    found = prdc(x, x)
    assert (found.precision.mean, found.recall.mean) == (1, 1)
    assert (found.density.mean, found.coverage.mean, found.alike) == (0, 0, 25)
