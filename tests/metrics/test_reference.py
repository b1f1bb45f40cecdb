"""Mirrors cdm_cli/metrics/reference.py."""

import numpy as np
import pytest
import torch

from cdm_cli.errors import BadInputError
from cdm_cli.metrics.collector import Collector
from cdm_cli.metrics.reference import Reference

KEY = {"part": "train", "resolution": 32}


@pytest.fixture
def reference(generator):
    collector = Collector.empty(np.arange(30) + 5, np.zeros(30, dtype=np.int64), 4, keep=8)
    collector.add(np.arange(30), torch.randn(30, 4, generator=generator), None)
    return Reference.of("train", collector, "ab" * 32)


def test_a_file_of_statistics_brings_everything_back(reference):
    found = Reference.from_bytes(reference.to_bytes(KEY), 4, KEY)
    assert (found.name, found.num, found.digest) == ("train", 30, "ab" * 32)
    for name in ("mu", "sigma", "features", "ids"):
        assert (getattr(found, name) == getattr(reference, name)).all()
    assert found.features.shape == (8, 4)
    assert set(found.ids) <= set(range(5, 35))


def test_bare_moments_are_enough():
    bare = Reference(name="x.npz", num=None, mu=np.zeros(2), sigma=np.eye(2), digest="")
    found = Reference.from_bytes(bare.to_bytes(KEY), 2, KEY)
    assert found.num is None
    assert found.features is None


@pytest.mark.parametrize("cut", [0, 4, 40, 400, -1])
def test_a_damaged_file_is_refused(reference, cut):
    with pytest.raises(BadInputError):
        Reference.from_bytes(reference.to_bytes(KEY)[:cut], 4, KEY)


def test_statistics_of_something_else_are_refused(reference):
    content = reference.to_bytes(KEY)
    with pytest.raises(BadInputError, match="something else"):
        Reference.from_bytes(content, 4, {**KEY, "resolution": 64})
    with pytest.raises(BadInputError, match="something else"):
        Reference.from_bytes(content, 5, KEY)
