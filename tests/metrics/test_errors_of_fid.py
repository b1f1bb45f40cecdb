"""The short form of benchmarks/errors_of_fid.py: errors against repeated draws, equal points.

Seeds are fixed; the bounds are three standard deviations of what other seeds give.
"""

import importlib.util
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.tree import ROOT

SCRIPT = ROOT / "benchmarks/errors_of_fid.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("errors_of_fid", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["errors_of_fid"] = module  # where its dataclasses look for their types
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("place", [0, 1, 2])
def test_errors_are_the_spread_of_repeated_draws(script, place):
    """Of classes of equal size and of others, and where FID is mostly bias."""
    case = replace(script.SINGLE[place], D=16, N=250)
    found = script.spread(case.sets(70))
    assert found["single"] == pytest.approx(1, abs=0.25)
    assert found["paired"] == pytest.approx(1, abs=0.25)
    assert found["before"] > 1.1 * found["single"]
    assert abs(found["corrected"] - true_fid(case)) < 0.2 * (found["FID"] - true_fid(case))


def true_fid(case):
    """The distance of the first point's distribution: a shift, and a scale of all."""
    return case.shift**2 + np.trace(case.sigma) * (1 - case.scale) ** 2


def test_of_points_of_equal_fid_hardly_ever_one_is_called_worse(script):
    """One family of twenty is expected; six of twenty-five come with one seed in a thousand."""
    case = replace(script.FAMILIES[-1], D=6, N=120)
    found = script.wrong(script.estimated(*drawn) for drawn in case.sets(25))
    assert found["wrong"] < 6 / 25


def test_features_of_a_file_are_dealt_into_disjoint_sets(script, tmp_path):
    case = replace(script.SINGLE[0], D=4, N=400)
    x, labels = case.draw(np.random.default_rng(0))
    held = {"features": x.astype(np.float16), "labels": labels, "reference": x[0] + 0.1}
    np.savez(tmp_path / "features.npz", **held)
    features = script.Features(tmp_path / "features.npz", 20)
    sets = list(features.sets())
    assert (len(sets), [x.shape for x, _, _ in sets[:1]]) == (20, [(2, 20, 4)])
    assert all((np.bincount(found) == 2).all() for _, found, _ in sets)
    assert 0 <= script.wrong(features.apart(3))["wrong"] <= 1
    mixed = next(features.mixed(1))
    assert script.wrong([script.estimated(*mixed)])["families"] == 1
