"""Mirrors cdm_cli/metrics/threads.py: how many threads small matrices take."""

import threading

import numpy as np
import pytest
import scipy.linalg  # noqa: F401  a BLAS of its own
import torch
from threadpoolctl import threadpool_info

from cdm_cli.metrics.collector import Collector
from cdm_cli.metrics.frechet import FeatureGaussian
from cdm_cli.metrics.threads import SMALL, limit_threads_if_small


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def most_threads() -> int:
    return max(pool["num_threads"] for pool in threadpool_info())


@pytest.mark.parametrize(("feature_dim", "threads"), [(SMALL, 1), (SMALL + 1, 2)])
def test_matrices_of_many_features_alone_take_several(feature_dim, threads):
    with limit_threads_if_small(feature_dim):
        assert torch.get_num_threads() == threads
        assert threads > 1 or most_threads() == 1
    assert torch.get_num_threads() == 2


def test_the_numbers_of_a_classifier_are_computed_in_one(monkeypatch):
    met, distance = list[int](), FeatureGaussian.distance

    def watched(self, other):
        met.append(max(most_threads(), torch.get_num_threads()))
        return distance(self, other)

    monkeypatch.setattr(FeatureGaussian, "distance", watched)
    ids = np.arange(40)
    collector = Collector.empty(ids, ids % 4, 8, device=torch.device("cpu"))
    collector.add(ids, torch.randn(40, 8, generator=torch.Generator().manual_seed(0)), None)
    collector.frechet(collector.whole.gaussian())
    assert len(met) > 1
    assert set(met) == {1}


def test_another_thread_samples_with_its_own():
    limited, seen = threading.Event(), threading.Event()

    def judge():
        with limit_threads_if_small(8):
            limited.set()
            seen.wait()

    judging = threading.Thread(target=judge)
    judging.start()
    limited.wait()
    try:
        assert torch.get_num_threads() == 2
    finally:
        seen.set()
        judging.join()
