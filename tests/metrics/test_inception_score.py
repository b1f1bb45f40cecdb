"""Mirrors cdm_cli/metrics/inception_score.py."""

import numpy as np
import pytest
import torch

from cdm_cli.metrics.inception_score import SplitScores
from cdm_cli.metrics.order import deal_splits
from tests.metrics.whole import inception_score


def one_hot(labels, K):
    return torch.eye(K)[torch.as_tensor(labels)]


def test_sure_and_balanced_gives_the_number_of_classes():
    labels = np.arange(1000) % 5
    splits = deal_splits(np.arange(1000), 10)
    ids = np.empty(1000, dtype=np.int64)
    for split in range(10):  # each split holds every class equally often
        ids[np.arange(1000) // 100 == split] = np.flatnonzero(splits == split)
    score = inception_score(one_hot(labels, 5), ids)
    assert score.mean == pytest.approx(5, rel=1e-12)
    assert score.std == pytest.approx(0, abs=1e-12)


def test_ignorance_scores_one():
    score = inception_score(torch.full((100, 7), 1 / 7))
    assert score == pytest.approx((1, 0), abs=1e-6)


def test_one_split_is_the_formula(generator):
    p = torch.softmax(torch.randn(50, 6, generator=generator, dtype=torch.float64) * 2, 1)
    kl = (p * (p.log() - p.mean(0).log())).sum(1).mean()
    assert inception_score(p, num_splits=1).mean == pytest.approx(kl.exp().item(), rel=1e-12)


def test_order_of_the_file_changes_nothing(generator):
    """A class-ordered file, cut into contiguous splits, would score 1 instead of 8."""
    labels = np.repeat(np.arange(8), 125)
    p, ids = one_hot(labels, 8), np.arange(1000)
    ordered = inception_score(p, ids)
    assert ordered.mean > 7.5
    other = np.random.default_rng(0).permutation(1000)
    assert inception_score(p[other], ids[other]) == pytest.approx(ordered, rel=1e-12)


def test_batches_add_up(generator):
    p = torch.softmax(torch.randn(200, 6, generator=generator), 1)
    splits = torch.from_numpy(deal_splits(np.arange(200), 10))
    scores = SplitScores.empty(10, 6, p.device)
    for start in range(0, 200, 64):
        scores.add(p[start : start + 64], splits[start : start + 64])
    assert scores.score() == pytest.approx(inception_score(p), rel=1e-12)
