"""Mirrors cdm_cli/cascade/generate.py: the pass of a kept state, and that no noise is used twice.

What is kept changes nothing: tests/cascade/test_generate.py, on a real stage.
"""

import pytest
import torch

from cdm_cli.cascade.chain import build_chain
from cdm_cli.cascade.conditioning import draw_non_truncated
from cdm_cli.cascade.elbo import bound
from cdm_cli.cascade.generate import KeptStates, SampleInputs, generate, name_noise
from cdm_cli.data.pixels import from_uint8, to_uint8
from cdm_cli.diffusion import noise
from cdm_cli.diffusion.between import choose_rule
from cdm_cli.options.sampling import Sampling
from tests.tiny import base_config, sr_config, stage_of

X = torch.zeros(3, 1, 1, 1)


def kept_of(steps, times, restart_from=None, num=3):
    """What is kept of (time, value) pairs, and what is passed on; a gap is told as (a, b)."""

    def between(wanted, below, above):
        return {s: (below[0], above[0]) for s in wanted if below[0] < s < above[0]}

    kept = KeptStates(times, restart_from, num, between)
    passed = [time for time, _ in kept.collect((time, X + value) for time, value in steps)]
    values = {
        s: z_s if isinstance(z_s, tuple) else z_s.flatten().tolist() for s, z_s in kept.z.items()
    }
    return values, passed


def test_visited_times_have_their_state_and_others_their_gap():
    steps = [(9, 0.1), (5, 0.5), (1, 0.75), (0, 1.0)]
    values, passed = kept_of(steps, (9, 7, 5, 3), num=2)
    assert values == {9: pytest.approx([0.1] * 2), 7: (5, 9), 5: [0.5, 0.5], 3: (1, 5)}
    assert passed == [9, 5, 1, 0]


def test_below_a_restart_states_are_of_the_second_pass_from_it_on_of_the_first():
    first, second = [(9, 0), (5, 1), (2, 2), (0, 3)], [(5, 4), (2, 5), (0, 6)]
    values, passed = kept_of([*first, *second], (1, 2, 3, 5, 7, 9), restart_from=5)
    assert values == {9: [0.0] * 3, 7: (5, 9), 5: [1.0] * 3, 3: (2, 5), 2: [5.0] * 3, 1: (0, 2)}
    assert passed == [9, 5, 2, 0, 2, 0]  # the start of the second pass costs no evaluation


# No number is drawn twice.


@pytest.fixture
def drawn(monkeypatch):
    """Every draw of Philox, as (key, step), in order."""
    seen, words = [], noise.words

    def recorded(key, ids, step, num):
        seen.append((key, step))
        return words(key, ids, step, num)

    monkeypatch.setattr(noise, "words", recorded)
    return seen


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm-solver++", "sde-dpm-solver++"])
def test_x_T_steps_restart_z_s_and_states_between_share_no_noise(drawn, sampler):
    """A cascade of three stages with one seed, and its bounds: each key and step once."""
    ids, keep, s = torch.arange(2), range(1, 21), 5
    sampling = Sampling(sampler=sampler, steps=4, restart_from=9)
    z_0, samples = None, SampleInputs(ids, ids)
    for config in (base_config(), sr_config(), sr_config(16, 32)):
        if z_0 is not None:
            z_s = draw_non_truncated(config, z_0, s, ids=ids, seed=0)
            samples = SampleInputs(ids, ids, z_s, torch.full_like(ids, s))
        stage = stage_of(config)
        chain = build_chain(config, sampling, keep=keep)
        made = generate(stage, chain, samples, seed=0, keep=keep)
        z_0 = to_uint8(made.x_0)
        whole = build_chain(config, Sampling(sampler="ancestral", steps=0))
        bound(stage, whole, from_uint8(z_0), samples, seed=0, terms=3)
    assert len(drawn) == len(set(drawn))
    purposes = (
        5 if choose_rule(sampler) == "bridge" else 4
    )  # the pass, between, two of bounds, z'_s
    assert len({key for key, _ in drawn}) == 3 * purposes - 1  # no z'_s of a base stage


def test_their_numbers_are_uncorrelated_at_any_distance():
    """x_T, the first step, z'_s and the state at s: one id, one seed, as the stage draws them."""
    config, ids = sr_config(), torch.arange(16)
    name, shape = name_noise(config), torch.empty(16, 3, 16, 16)
    steps = noise.Noise(0, name, ids)
    between = noise.Noise(0, f"{name}/between", ids)
    between.skip_to(1)
    gray = torch.full((16, 3, 8, 8), 127, dtype=torch.uint8)
    rows = [
        steps(shape),
        steps(shape),
        between(shape),
        draw_non_truncated(config, gray, 20, ids=ids, seed=0),
    ]
    flat = [row.double().flatten() for row in rows]
    spectra = [torch.fft.rfft((row - row.mean()) / row.std(), n=2 * 16 * 768) for row in flat]
    for i in range(4):
        for j in range(i):
            lags = torch.fft.irfft(spectra[i].conj() * spectra[j])
            overlap = min(len(flat[i]), len(flat[j])) ** 0.5
            assert lags.abs().max() / overlap < 6.5  # standard deviations
