"""Mirrors cdm_cli/jobs/sampling/probe.py.

The same samples at any batch size and number of processes.
"""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from cdm_cli.cascade.generate import generate
from cdm_cli.data.pixels import move_channels_last, to_uint8
from cdm_cli.data.store import open_store
from cdm_cli.errors import MemoryFloorError, MismatchError, NotFiniteError, UsageError
from cdm_cli.jobs.judging.probe_score import fill_in_steps
from cdm_cli.jobs.runtime.session import Session, Silent
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.sampling import probe as probing
from cdm_cli.jobs.sampling.headers import Header
from cdm_cli.jobs.sampling.judged_on import make_probe
from cdm_cli.jobs.sampling.probe import (
    build_averaged,
    check_shares,
    choose_s,
    draw_probe,
    find_share,
    gather_shares,
    make_base_probe,
)
from cdm_cli.nets.ema import Ema
from cdm_cli.options.sampling import Sampling
from tests.tiny import (
    CLASSES,
    arrays_of,
    base_config,
    continuous_config,
    net_of,
    sr_config,
    stage_of,
    write_store,
)

FLAGS = ("--num", "--s")


def header(config, tmp_path):
    return Header(tmp_path / "runs/x", config, CLASSES)


@pytest.fixture
def store(tmp_path):
    val = arrays_of(10, (8, 16), seed=1)
    parts = {"train": arrays_of(12, (8, 16)), "val": val}
    with open_store(write_store(tmp_path / "data.h5", "prepared", parts)) as found:
        yield found


class Partner(World):
    """One of several processes whose partners always agree with it."""

    def agree(self, flag):
        return flag

    def gather(self, value):
        return [value] * self.size


def made(probe, stage, batch_size=4, world=None, report=None, asked=lambda: ""):
    session = Session(torch.device("cpu"), world=world or World(), report=report or Silent())
    return draw_probe(probe, stage, batch_size, session, find_stop=asked)


def directly(probe, stage):
    samples = probe.make_inputs(range(probe.num))
    found = generate(stage, probe.chain, samples, seed=probe.seed).x_0
    return move_channels_last(to_uint8(found)).numpy()


def nearly(one, other):
    """Equal but for the last bits of float32, which may round to another byte."""
    return np.abs(one.astype(int) - other.astype(int)).max() <= 1


@pytest.mark.parametrize("batch_size", [2, 4, 64])
def test_samples_are_those_of_the_stage_at_any_batch_size(batch_size, tmp_path):
    config = base_config()
    probe = make_base_probe(header(config, tmp_path), 7, Sampling(seed=3))
    stage = stage_of(config)
    assert nearly(made(probe, stage, batch_size), directly(probe, stage))
    assert probe.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert probe.evaluations == 7 * 4


@pytest.mark.parametrize("size", [2, 3])
def test_processes_make_shares_that_are_the_whole(size, tmp_path):
    """Seven samples: shares differ by one, and a process whose share is done draws along."""
    config = base_config()
    probe, stage = make_base_probe(header(config, tmp_path), 7, Sampling()), stage_of(config)
    shares = [made(probe, stage, 2, Partner(rank=rank, size=size)) for rank in range(size)]
    assert nearly(sum(shares), directly(probe, stage))
    filled = [set(np.flatnonzero(share.any((1, 2, 3)))) for share in shares]
    assert [len(places) for places in filled] == [len(p) for p in np.array_split(range(7), size)]


def test_evaluations_are_told_and_a_stop_is_obeyed_at_the_next_one(tmp_path):
    config = base_config()
    probe, stage, told = (
        make_base_probe(header(config, tmp_path), 6, Sampling()),
        stage_of(config),
        [],
    )

    class Counting(Silent):
        @contextmanager
        def track(self, what, total, unit, done=0):
            told.append((what, total, unit))
            yield lambda count, note: told.append(count)

    made(probe, stage, 4, report=Counting())
    first, *counts = told
    assert first == ("draw", probe.evaluations, "evaluations")
    assert sum(counts) == probe.evaluations
    told.clear()
    assert made(probe, stage, 4, report=Counting(), asked=lambda: "SIGTERM") is None
    assert told == [first, 4]


def test_a_stop_that_another_process_was_asked_for_is_obeyed(tmp_path):
    class Stopping(World):
        def any(self, flag):
            return True

    config = base_config()
    probe = make_base_probe(header(config, tmp_path), 6, Sampling())
    assert made(probe, stage_of(config), world=Stopping()) is None


def test_memory_that_does_not_suffice_halves_the_batch(tmp_path, monkeypatch):
    sizes, real = [], probing.generate

    def limited(stage, chain, samples, *, batch_size, **more):
        sizes.append(batch_size)
        if batch_size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(stage, chain, samples, batch_size=batch_size, **more)

    monkeypatch.setattr(probing, "generate", limited)
    config = base_config()
    probe, stage = make_base_probe(header(config, tmp_path), 5, Sampling()), stage_of(config)
    assert nearly(made(probe, stage, 5), directly(probe, stage))
    assert sizes == [5, 3, 2, 2, 2]
    monkeypatch.setattr(probing, "_sample", lambda *words: None)
    with pytest.raises(MemoryFloorError, match="one image at a time does not fit"):
        made(probe, stage, 5)


def test_what_is_not_finite_becomes_no_image_in_any_process(tmp_path):
    """Bytes would hide it: the images would be black, and judged."""

    class Second(World):
        def gather(self, value):
            return [theirs[0], value]

    config, theirs = base_config(), []
    probe, ruined = make_base_probe(header(config, tmp_path), 6, Sampling()), stage_of(config)
    for parameter in ruined.net.parameters():
        parameter.mul_(1e18)
    with pytest.raises(NotFiniteError, match="tiny gives images that are not finite"):
        made(probe, ruined)

    class First(World):
        def gather(self, value):
            theirs.append(value)
            return [value, value]

    with pytest.raises(NotFiniteError):
        made(probe, ruined, world=First(rank=0, size=2))
    with pytest.raises(NotFiniteError, match=r"rank 0 on .*: tiny gives images"):
        made(probe, stage_of(config), world=Second(rank=1, size=2))


def test_more_processes_than_samples_draw_along_and_cannot_judge(tmp_path):
    config = base_config()
    probe, stage = make_base_probe(header(config, tmp_path), 2, Sampling()), stage_of(config)
    worlds = [Partner(rank=rank, size=3) for rank in range(3)]
    shares = [find_share(2, world) for world in worlds]
    assert shares == [range(1), range(1, 2), range(2, 2)]
    found = [
        made(probe, stage, world=world)[mine.start : mine.stop]
        for world, mine in zip(worlds, shares, strict=True)
    ]
    assert nearly(np.concatenate(found), directly(probe, stage))
    with pytest.raises(MismatchError, match="2 samples for 3 processes"):
        check_shares(probe, worlds[0])


def test_shares_of_all_processes_are_one_whole():
    class Heard(World):
        def gather(self, value):
            others = [find_share(7, World(rank, 3)) for rank in range(3)]
            assert value.tolist() == list(others[self.rank])
            return [np.arange(7)[other.start : other.stop] for other in others]

    assert gather_shares(np.arange(7), World()).tolist() == list(range(7))
    assert gather_shares(np.arange(7), Heard(1, 3)).tolist() == list(range(7))


def test_a_super_resolution_stage_enlarges_real_images_of_val(tmp_path, store):
    config = sr_config()
    probe = make_probe(header(config, tmp_path), store, 6, 7, Sampling(), FLAGS)
    inputs = probe.make_inputs(range(6))
    assert inputs.s is not None
    assert inputs.s.tolist() == [7] * 6
    assert (probe.s, probe.lowres) == (7, "val")
    assert inputs.ids.tolist() == inputs.ids.unique().tolist()
    val = store.parts["val"]
    assert probe.labels.tolist() == np.asarray(val.labels)[inputs.ids.numpy()].tolist()
    assert nearly(made(probe, stage_of(config)), directly(probe, stage_of(config)))
    with pytest.raises(UsageError, match=r"--num 11: .*10 images in val") as refused:
        make_probe(header(config, tmp_path), store, 11, 7, Sampling(), FLAGS)
    assert refused.value.next == "--num 10"


def test_settings_say_what_scores_depend_on(tmp_path, store):
    base = make_base_probe(header(base_config(), tmp_path), 6, Sampling(seed=2)).list_settings()
    assert base == {
        "num": 6, "sampler": "ancestral", "steps": 4, "variance": "learned", "clip": True,
        "seed": 2,
    }  # fmt: skip
    sr = make_probe(header(sr_config(), tmp_path), store, 6, None, Sampling(sampler="ddim"), FLAGS)
    found = sr.list_settings()
    assert (found["s"], found["lowres"], found["variance"]) == (5, "val", "")


def test_the_default_s_is_a_quarter_of_the_range(tmp_path):
    assert choose_s(base_config(), None, "--s") is None
    assert choose_s(sr_config(), None, "--s") == 5
    assert choose_s(sr_config(), 0, "--s") == 0
    assert choose_s(continuous_config(), None, "--s") == 0
    narrow = sr_config()
    narrow = narrow.model_copy(
        update={"conditioning": narrow.conditioning.model_copy(update={"s_min": 12, "s_max": 16})}
    )
    assert choose_s(narrow, None, "--s") == 13
    with pytest.raises(UsageError, match="--s: a base stage has no s"):
        choose_s(base_config(), 0, "--s")
    with pytest.raises(UsageError, match=r"s = 12\.\.16"):
        choose_s(narrow, 11, "--s")


def test_steps_of_a_judged_stage():
    assert fill_in_steps(base_config(steps=4), Sampling()).steps is None  # the stage's own
    assert fill_in_steps(base_config(steps=None), Sampling()).steps == 20
    assert fill_in_steps(base_config(steps=None), Sampling(steps=0)).steps == 0
    long = base_config(steps=None).model_copy(
        update={"schedule": base_config().schedule.model_copy(update={"T": 4000})}
    )
    assert fill_in_steps(long, Sampling()).steps == 250


def test_averaged_weights_are_a_stage_of_their_own():
    config = base_config()
    stage = stage_of(config)
    ema = Ema(net_of(config, seed=9), 0.9)
    own = build_averaged(stage, ema)
    for (name, mine), theirs in zip(
        own.net.named_parameters(), stage.net.parameters(), strict=True
    ):
        assert torch.equal(mine, ema.state_dict()[name])
        assert mine.data_ptr() not in (theirs.data_ptr(), ema.state_dict()[name].data_ptr())
    assert not own.net.training


def test_classes_that_had_no_image_are_not_probed_and_that_is_part_of_the_identity(tmp_path):
    whole = header(base_config(), tmp_path)
    some = Header(whole.directory, whole.config, CLASSES, (0,))
    probe = make_base_probe(some, 5, Sampling())
    assert probe.labels.tolist() == [1, 2, 1, 2, 1]
    assert torch.equal(probe.make_inputs(range(5)).y, torch.from_numpy(probe.labels))
    assert probe.identity["classes"] == [1, 2]
    assert "classes" not in make_base_probe(whole, 5, Sampling()).identity
    blind = Header(whole.directory, base_config(num_classes=0), CLASSES, (0,))
    assert make_base_probe(blind, 3, Sampling()).labels.tolist() == [0, 0, 0]
