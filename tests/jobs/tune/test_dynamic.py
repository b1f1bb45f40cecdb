"""Mirrors cdm_cli/jobs/tune/dynamic.py: the sum is that of `eval elbo`, and the least of all."""

from itertools import combinations, pairwise

import pytest
import torch

from cdm_cli.diffusion.losses import prior_bits, vlb
from cdm_cli.diffusion.process import q_sample
from cdm_cli.diffusion.schedules import cosine, respace
from cdm_cli.jobs.tune.dynamic import decoders, divergences, find_least_bits, predict, priors
from tests.oracles import GaussianData

SCHEDULE, TIMES = cosine(30), (1, 2, 4, 7, 11, 16, 22, 27, 30)
DATA = GaussianData(mean=0.1, std=0.4)


@pytest.fixture(scope="module")
def x_0():
    generator = torch.Generator().manual_seed(0)
    x = DATA.sample(torch.randn(40, 3, 8, 8, generator=generator, dtype=torch.float64))
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def noise(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


@pytest.fixture(scope="module")
def found(x_0):
    return predict(SCHEDULE, TIMES, x_0, DATA.eps_theta(SCHEDULE), noise())


@pytest.fixture(scope="module")
def last(found):
    return decoders(SCHEDULE, found)


def total(found, last, times):
    """The bits of a chain with these ascending times."""
    at = [TIMES.index(t) for t in times]
    bits = last[at[0], at[1] if len(at) > 1 else at[0]]
    bits += sum(divergences(SCHEDULE, found)[a, b] for a, b in pairwise(at))
    return bits + priors(SCHEDULE, found)[at[-1]]


@pytest.mark.parametrize("times", [(4, 11, 22, 30), (1, 30), (7, 16, 27)])
def test_the_sum_is_the_bound_of_the_respaced_chain(found, last, x_0, times):
    """Term by term as `eval elbo` sums them, of the same images and other noise."""
    few, draw = respace(SCHEDULE, torch.tensor(times)), noise(2)
    eps_theta, terms = DATA.eps_theta(few), []
    for t in range(1, few.T + 1):
        time = torch.full((len(x_0),), t)
        x_t = q_sample(few, x_0, time, draw(x_0))
        output = eps_theta(x_t, time)
        terms.append(vlb(few, x_0, x_t, time, output, variance="small", clip=True).mean())
    bits = float(sum(terms) + prior_bits(few, x_0).mean())
    assert total(found, last, times) == pytest.approx(bits, rel=0.02)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8])
def test_no_other_list_has_fewer_bits(found, last, steps):
    best = find_least_bits(SCHEDULE, found, steps)
    assert list(best) == sorted(best, reverse=True)
    least = min(total(found, last, times) for times in combinations(TIMES, steps))
    assert total(found, last, best[::-1]) == pytest.approx(least, rel=1e-12)


def test_all_times_and_more_than_there_are(found):
    assert find_least_bits(SCHEDULE, found, len(TIMES)) == TIMES[::-1]
    with pytest.raises(ValueError, match="10 steps of 9"):
        find_least_bits(SCHEDULE, found, 10)
