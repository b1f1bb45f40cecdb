"""Mirrors cdm_cli/jobs/training/sizes.py: sizes that did not fit are not tried again."""

import json

import pytest
import torch

from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.training import sizes
from cdm_cli.jobs.training.sizes import SLACK, Sizes, open_sizes
from cdm_cli.presets import preset
from tests.jobs.training.line import Line, batch, trainer
from tests.jobs.training.test_step import state

FREE = 2**30


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cdm/sizes/of.json"


def sizes_at(path, free):
    return Sizes(path, lambda: free)


def test_what_did_not_fit_does_not_fit_into_less(path):
    sizes_at(path, FREE).note(8)
    for free, fits in ((FREE, False), (FREE // 2, False), (FREE + SLACK + 1, True)):
        assert sizes_at(path, free).did_not_fit(8) is not fits
    assert not sizes_at(path, FREE).did_not_fit(4)


def test_the_most_that_was_too_little_is_kept(path):
    for free in (FREE, FREE // 2, 3 * FREE, FREE):
        sizes_at(path, free).note(8)
    assert sizes_at(path, 2 * FREE).did_not_fit(8)
    assert json.loads(path.read_text()) == {"8": 3 * FREE}


@pytest.mark.parametrize("found", [b"", b"[8]", b"{", b'{"8": "all"}', b'{"8": true}', b"\xff"])
def test_a_file_that_is_not_ours_tells_nothing(found, path):
    path.parent.mkdir(parents=True)
    path.write_bytes(found)
    assert not sizes_at(path, 0).did_not_fit(8)


def test_where_nothing_can_be_written_nothing_is_kept(path):
    path.parent.parent.mkdir()
    path.parent.write_text("no directory")
    sizes_at(path, FREE).note(8)


def test_memory_that_others_took_meanwhile_is_no_reason(path):
    free = [100 * FREE]
    taken = Sizes(path, lambda: free[0])
    free[0] = 99 * FREE  # by libraries
    taken.note(8)
    assert taken.did_not_fit(8)
    free[0] = 50 * FREE
    taken.note(4)
    assert not taken.did_not_fit(4)


def step_with_room_for(most, sizes, monkeypatch):
    """Take a step with room for so many images; return the sizes that were tried, and the state."""
    tried, real = [], Line.compute_losses

    def losses(self, part, draws):
        tried.append(len(part.y))
        if len(part.y) > most:
            raise torch.OutOfMemoryError("out of memory")
        return real(self, part, draws)

    one = trainer()
    one.gradients.sizes = sizes
    with monkeypatch.context() as patch:
        patch.setattr(Line, "compute_losses", losses)
        one.step(1, batch())
    return tried, state(one), one.note_halving(1)


def test_a_second_run_comes_to_the_same_without_trying(path, monkeypatch):
    tried, first, said = step_with_room_for(1, sizes_at(path, FREE), monkeypatch)
    again, second, said_again = step_with_room_for(1, sizes_at(path, FREE), monkeypatch)
    assert (tried, again) == ([4, 2, 1, 1, 1, 1], [1, 1, 1, 1])
    assert said == said_again != None  # noqa: E711
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_with_more_memory_it_is_tried_again(path, monkeypatch):
    step_with_room_for(1, sizes_at(path, FREE), monkeypatch)
    tried, _, said = step_with_room_for(4, sizes_at(path, 2 * FREE), monkeypatch)
    assert (tried, said) == ([4], None)


def test_memory_that_others_take_later_is_not_kept(path, monkeypatch):
    one = trainer()
    one.gradients.sizes = sizes_at(path, FREE)
    one.step(1, batch())
    assert one.gradients.sizes is None


def test_what_decides_how_much_fits_has_a_file_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sizes, "_measure_room", lambda device: FREE)
    monkeypatch.setattr(sizes, "name_device_class", lambda device: "H")
    monkeypatch.setattr(sizes, "describe_build", lambda device: "B")
    device, plan = torch.device("cuda", 0), preset("tiny-base8")
    alone = Session(device)
    others = ({"gradient_checkpointing": True}, {"batch_size": 16}, {"virtual_ranks": 2})
    trainings = [plan.training.model_copy(update=other) for other in others]
    for made, precision in (
        (plan, "fp32"), (plan, "bf16"), (preset("tiny-base16"), "fp32"),
        *((plan.model_copy(update={"training": training}), "fp32") for training in trainings),
    ):  # fmt: skip
        found = open_sizes(made, precision, alone)
        assert not found.did_not_fit(8)
        found.note(8)
        assert open_sizes(made, precision, alone).did_not_fit(8)
    two = Session(device, world=World(size=2))
    assert open_sizes(plan, "fp32", two) is None


def test_a_cpu_has_no_such_sizes():
    assert open_sizes(preset("tiny-base8"), "fp32", Session(torch.device("cpu"))) is None
