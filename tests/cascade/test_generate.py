"""Mirrors cdm_cli/cascade/generate.py: what is visited, kept, padded, and never changes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cdm_cli.cascade import generate as generate_module
from cdm_cli.cascade.chain import build_chain
from cdm_cli.cascade.generate import SampleInputs, as_images, generate, name_noise, walk
from cdm_cli.config import SamplingDefaults
from cdm_cli.diffusion.between import draw_between
from cdm_cli.diffusion.noise import Noise
from cdm_cli.diffusion.samplers import ancestral, restart
from cdm_cli.diffusion.schedules import linear
from cdm_cli.errors import NotFiniteError, UsageError
from cdm_cli.options.sampling import Sampling
from tests.tiny import base_config, continuous_config, sr_config, stage_of


@pytest.fixture(scope="module")
def stage():
    return stage_of(base_config())


def samples(ids=range(5)):
    ids = torch.tensor(list(ids))
    return SampleInputs(ids, ids % 3)


def test_the_stage_has_defaults_and_flags_come_first():
    config = base_config().model_copy(
        update={"sampling": SamplingDefaults(sampler="ddim", steps=7, variance=None)}
    )
    chain = build_chain(config, Sampling())
    assert (chain.sampler, chain.schedule.T, chain.variance) == ("ddim", 7, "small")
    assert build_chain(config, Sampling(sampler="dpm-solver++")).schedule.T == 20  # 7 are of ddim
    chain = build_chain(config, Sampling(sampler="ancestral", steps=0, variance="large"))
    assert (chain.sampler, chain.schedule.T, chain.variance) == ("ancestral", 20, "large")


@pytest.mark.parametrize(
    ("sampler", "times"),
    [
        ("ancestral", [0, 1, 10, 20]),
        ("ddim", [0, 1, 10, 20]),
        ("dpm-solver++", [0, 7, 13, 20]),
        ("sde-dpm-solver++", [0, 7, 13, 20]),
    ],
)
@pytest.mark.parametrize("restart_from", [None, 11])
def test_what_is_kept_changes_neither_x_0_nor_the_steps(stage, sampler, times, restart_from):
    plain = build_chain(stage.config, Sampling(sampler=sampler, steps=3, restart_from=restart_from))
    keep = range(1, 21)
    chain = build_chain(
        stage.config, Sampling(sampler=sampler, steps=3, restart_from=restart_from), keep=keep
    )
    assert chain.schedule.times.tolist() == sorted({*times, restart_from or 0})
    assert chain.evaluations == plain.evaluations
    counted = []
    watch = lambda steps: (counted.append(step[0]) or step for step in steps)  # noqa: E731
    bare = generate(stage, plain, samples(), seed=3)
    got = generate(stage, chain, samples(), seed=3, keep=keep, watch=watch)
    assert torch.equal(got.x_0, bare.x_0)
    assert len(counted) == 1 + chain.evaluations
    assert sorted(got.z) == list(keep)
    for some in [(5,), (12, 6, 8), (20,)]:
        alone = generate(stage, chain, samples(), seed=3, keep=some)
        assert torch.equal(alone.x_0, bare.x_0)
        assert sorted(alone.z) == sorted(some)
        assert all(torch.equal(z_s, got.z[s]) for s, z_s in alone.z.items())


def test_kept_states_are_those_of_the_pass_that_made_x_0(stage):
    chain = build_chain(stage.config, Sampling(steps=0), keep=(9,))
    got = generate(stage, chain, samples(), seed=3, keep=(9, 20))
    states = dict(walk(stage, chain, samples(), 3))
    assert torch.equal(got.z[9], states[9])
    assert torch.equal(got.x_0, states[0])
    x_T = Noise(3, "base8", torch.arange(5))(torch.empty(5, 3, 8, 8))
    assert torch.equal(got.z[20], x_T)


def test_a_state_between_two_steps_is_of_the_ids_alone(stage):
    """Padding and company change nothing; the noise is that of its own time."""
    chain = build_chain(stage.config, Sampling(steps=3))
    whole = generate(stage, chain, samples(range(8)), seed=0, keep=(6,), batch_size=8).z[6]
    mixed = generate(stage, chain, samples([3, 6]), seed=0, keep=(6,), batch_size=8).z[6]
    assert torch.equal(mixed, whole[[3, 6]])
    states = dict(walk(stage, chain, samples(range(8)), 0))
    below, above = (1, states[1]), (10, states[10])
    assert torch.equal(whole, draw_between(stage.schedule, (6,), below, above, noise_at(8), 1)[6])


def noise_at(num):
    noise = Noise(0, "base8/between", torch.arange(num))

    def at(s, x):
        noise.skip_to(s)
        return noise(x)

    return at


def test_equals_the_plain_sampler_with_the_noise_of_the_ids(stage):
    chain = build_chain(stage.config, Sampling(steps=0))
    noise = Noise(11, name_noise(stage.config), torch.arange(5))
    x_T = noise(torch.empty(5, 3, 8, 8))
    eps_theta = stage.eps_theta(stage.schedule, samples().y)
    *_, (t, x_0) = ancestral(eps_theta, stage.schedule, x_T, randn_like=noise, variance="learned")
    assert t == 0
    assert torch.equal(generate(stage, chain, samples(), seed=11).x_0, x_0)


def test_a_padded_batch_is_bit_identical_in_any_company_and_order(stage):
    chain = build_chain(stage.config, Sampling(steps=3))
    whole = generate(stage, chain, samples(range(8)), seed=0, batch_size=4 * 2).x_0
    alone = generate(stage, chain, samples([6]), seed=0, batch_size=8).x_0
    mixed = generate(stage, chain, samples([3, 6, 0]), seed=0, batch_size=8).x_0
    assert alone.shape[0] == 1
    assert torch.equal(alone[0], whole[6])
    assert torch.equal(mixed, whole[[3, 6, 0]])


def test_another_seed_id_or_stage_is_another_image(stage):
    chain = build_chain(stage.config, Sampling(steps=3))
    a = generate(stage, chain, samples([1]), seed=0).x_0
    assert not torch.equal(a, generate(stage, chain, samples([1]), seed=1).x_0)
    assert not torch.equal(a, generate(stage, chain, samples([4]), seed=0).x_0)
    assert name_noise(stage.config) == "base8"
    assert name_noise(sr_config()) == "sr8-16"


def test_restart_noises_x_0_and_walks_again(stage):
    """Below its time states are kept of the second pass, from there on of the first."""
    chain = build_chain(stage.config, Sampling(steps=4, restart_from=12), keep=(5,))
    assert chain.schedule.times.tolist() == [0, 1, 7, 12, 14, 20]
    assert chain.evaluations == 5 + 3
    visited = list(walk(stage, chain, samples(), 0))
    assert [time for time, _ in visited] == [20, 14, 12, 7, 1, 0, 12, 7, 1, 0]
    first = dict(visited[:6])
    noise = Noise(0, "base8", torch.arange(5))
    noise.skip_to(5)  # x_T and the noise of four of five steps
    eps_theta = stage.eps_theta(chain.schedule, samples().y)
    again = list(
        restart(chain.sample(noise), eps_theta, chain.schedule, first[0], 3, randn_like=noise)
    )
    got = generate(stage, chain, samples(), seed=0, keep=(5, 7, 9, 12, 14))
    second = dict(again)
    assert torch.equal(got.x_0, second[0])
    assert torch.equal(got.z[7], second[2])
    assert torch.equal(got.z[12], first[12])
    assert torch.equal(got.z[14], first[14])
    gaps = {5: ((1, second[1]), (7, second[2])), 9: ((7, second[2]), (12, second[3]))}
    for s, (below, above) in gaps.items():
        assert torch.equal(
            got.z[s], draw_between(stage.schedule, (s,), below, above, noise_at(5), 1)[s]
        )


def test_a_searched_schedule_is_walked_by_a_stage_that_is_fed_the_noise_level():
    stage = stage_of(continuous_config())
    alpha_bar = linear(4, 0.1, 0.9).alpha_bar[1:].tolist()
    chain = build_chain(stage.config, Sampling(), alpha_bar=alpha_bar)
    assert chain.evaluations == 4
    seen = []
    stage.net.embed_t.register_forward_pre_hook(lambda _, args: seen.append(args[0][0].item()))
    part = SampleInputs(torch.arange(2), torch.zeros(2).long(), torch.zeros(2, 3, 8, 8))
    generate(stage, chain, part, seed=0)
    assert seen == pytest.approx([1000 * a**0.5 for a in reversed(alpha_bar)], rel=1e-6)


def test_memory_that_a_library_lacks_is_memory(stage):
    def lacking(*_):
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")

    stage = stage.with_denoise(lacking)
    with pytest.raises(torch.OutOfMemoryError, match="ALLOC_FAILED"):
        generate(stage, build_chain(stage.config, Sampling(steps=4)), samples(), seed=0)


def test_watch_sees_every_step(stage):
    count = []

    def watch(steps):
        for step in steps:
            count.append(step[0])
            yield step

    chain = build_chain(stage.config, Sampling(steps=3))
    generate(stage, chain, samples(), seed=0, watch=watch)
    assert count == [20, 10, 1, 0]


@pytest.mark.parametrize(
    ("config", "sampling", "more", "says"),
    [
        (base_config(), {"steps": 21}, {}, "--steps 21: the stage has times 1..20"),
        (base_config(), {"restart_from": 21}, {}, "--restart-from 21"),
        (base_config(), {}, {"keep": (21,)}, "--keep-s 21: the stage has times 1..20"),
        (base_config(), {"sampler": "ddim", "variance": "small"}, {}, "ddim leaves no choice"),
        (continuous_config(), {"variance": "learned"}, {}, "did not learn"),
        (base_config(), {}, {"alpha_bar": (0.5, 0.1)}, "fed t, not the noise level"),
        (continuous_config(), {"restart_from": 3}, {"alpha_bar": (0.5, 0.1)}, "--restart-from"),
    ],
)
def test_what_cannot_be_is_refused_before_weights_exist(config, sampling, more, says):
    with pytest.raises(UsageError, match=says):
        build_chain(config, Sampling(**sampling), **more)


def test_a_chain_is_a_value(stage):
    chain = build_chain(stage.config, Sampling(steps=3))
    assert replace(chain, clip=False).schedule is chain.schedule


def test_floats_become_bytes_in_one_place_which_refuses_what_is_not_finite():
    stage = stage_of(base_config())
    with pytest.raises(NotFiniteError, match="tiny gives images that are not finite"):
        as_images(stage, torch.tensor([[[[0.5, torch.nan]]]]))
    assert as_images(stage, torch.tensor([[[[0.5, 7.0]]]])).tolist() == [[[[191], [255]]]]
    package = Path(generate_module.__file__).parents[1]
    calls = [path.name for path in package.rglob("*.py") if "to_uint8(" in path.read_text()]
    assert sorted(calls) == ["generate.py", "pixels.py"]
