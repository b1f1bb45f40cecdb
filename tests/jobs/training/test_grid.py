"""Mirrors cdm_cli/jobs/training/grid.py: what is shown, and that it costs the run nothing."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from cdm_cli.cascade.generate import SampleInputs, generate
from cdm_cli.data.pixels import move_channels_last, to_uint8
from cdm_cli.data.store import open_store
from cdm_cli.errors import MemoryFloorError, StoppedError, UsageError
from cdm_cli.jobs.sampling.headers import Header
from cdm_cli.jobs.training import grid as training_grid
from cdm_cli.jobs.training import log as training_log
from cdm_cli.jobs.training.grid import draw_grid, plan_layout, spread
from cdm_cli.plans import TrainingConfig
from tests.jobs.stopping import StopsAtBar
from tests.tiny import CLASSES, Told, arrays_of, base_config, sr_config, stage_of, write_store
from tests.trained import SR, left, overflowing, train, write_data

GRIDS = "training.grid_every=2"


@pytest.fixture
def home(tmp_path):
    write_data(tmp_path / "data.h5")
    return tmp_path


@pytest.fixture
def store(home):
    with open_store(home / "data.h5") as found:
        yield found


def header(config, home):
    return Header(home / "runs/x", config, CLASSES)


def grid(home, step, name="base"):
    return home / f"runs/{name}/samples/step-{step:08d}.png"


def test_places_are_spread_over_all_classes():
    assert spread(3) == [0, 1, 2]
    assert spread(1000) == [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]
    assert spread(1) == [0]


def test_a_base_stage_shows_four_samples_of_each_class(home, store):
    config = base_config(steps=7)
    layout = plan_layout(header(config, home), store, TrainingConfig(seed=5))
    probe = layout.probe
    assert [name for name, _ in layout.rows] == list(CLASSES)
    for label, (_, places) in enumerate(layout.rows):
        assert len(places) == 4
        assert set(probe.labels[places]) == {label}
    assert (probe.chain.sampler, probe.chain.schedule.T, probe.seed) == ("ddim", 7, 5)
    inputs = probe.make_inputs(range(probe.num))
    assert inputs.y is not None
    assert torch.equal(inputs.y, torch.from_numpy(probe.labels))


def test_a_grid_shows_classes_that_have_images(home, store):
    some = Header(home / "runs/x", base_config(), CLASSES, (1,))
    layout = plan_layout(some, store, TrainingConfig())
    assert [name for name, _ in layout.rows] == [CLASSES[0], CLASSES[2]]
    assert layout.probe.labels.tolist() == [0, 2] * 4


@pytest.mark.parametrize(("steps", "taken"), [(None, 20), (7, 7), (20, 20)])
def test_steps_are_those_of_the_stage_but_few(steps, taken, home, store, monkeypatch):
    layout = plan_layout(header(base_config(steps=steps), home), store, TrainingConfig())
    assert layout.probe.chain.evaluations == taken
    monkeypatch.setattr(training_grid, "STEPS", 5)
    layout = plan_layout(header(base_config(steps=steps), home), store, TrainingConfig())
    assert layout.probe.chain.evaluations == 5


def test_an_unconditional_stage_shows_rows_without_names(home, store):
    layout = plan_layout(header(base_config(num_classes=0), home), store, TrainingConfig())
    assert [name for name, _ in layout.rows] == [""] * 10
    places = np.concatenate([places for _, places in layout.rows])
    assert sorted(places.tolist()) == list(range(40))


def test_an_sr_stage_shows_input_sample_and_original_of_val(home, store):
    layout = plan_layout(header(sr_config(), home), store, TrainingConfig())
    assert (layout.probe.s, layout.probe.lowres) == (5, "val")  # a quarter of 0..20
    val = store.parts["val"]
    made = np.full((layout.probe.num, 16, 16, 3), 77, np.uint8)
    shown = np.asarray(draw_grid(layout, made))
    side, gap = 64, 2  # each pixel four times as wide
    for row, label in enumerate((0, 1, 2)):
        rows = np.flatnonzero(np.asarray(val.labels) == label)[:2]
        top = 28 + row * (side + gap)  # under a title and heads
        for column, place in enumerate(rows):
            end = shown.shape[1] - (1 - column) * 3 * (side + gap)
            tiles = [
                shown[top : top + side, end - number * (side + gap) + gap : ][:, :side]
                for number in (3, 2, 1)
            ]  # fmt: skip
            low, sample, original = (tile[::4, ::4] for tile in tiles)
            assert np.array_equal(original, val.images(16)[place])
            assert np.array_equal(low[::2, ::2], val.images(8)[place])
            assert (sample == 77).all()


def test_without_val_an_sr_stage_shows_train(tmp_path):
    path = write_store(tmp_path / "data.h5", "prepared", {"train": arrays_of(9, (8, 16))})
    with open_store(path) as store:
        layout = plan_layout(header(sr_config(), tmp_path), store, TrainingConfig(sample_s=0))
    assert (layout.probe.s, layout.probe.lowres) == (0, "train")


@pytest.mark.parametrize(
    ("config", "s", "told"),
    [(base_config(), 3, "a base stage has no s"), (sr_config(), 21, "s = 0..20")],
)
def test_an_s_that_cannot_be_is_refused(config, s, told, home, store):
    with pytest.raises(UsageError, match=told):
        plan_layout(header(config, home), store, TrainingConfig(sample_s=s))


def test_a_picture_shows_the_samples_of_the_layout_in_its_rows(home, store):
    config = base_config()
    layout, stage = plan_layout(header(config, home), store, TrainingConfig()), stage_of(config)
    ids = torch.arange(12)
    made = generate(stage, layout.probe.chain, SampleInputs(ids, ids % 3), seed=0)
    images = move_channels_last(to_uint8(made.x_0)).numpy()
    shown = np.asarray(draw_grid(layout, images))
    tile = shown[14 + 66 : 14 + 66 + 64, -64:][::8, ::8]  # second row, last column
    assert np.array_equal(tile, images[3 * 3 + 1])


def test_the_noise_is_the_same_at_every_step(home):
    """With weights that stand still, pictures of different steps are equal."""
    train(home, GRIDS, "training.lr=1e-30", steps=4)
    assert grid(home, 2).read_bytes() == grid(home, 4).read_bytes()
    assert not grid(home, 3).exists()


def test_the_weights_are_the_averaged_ones(home, monkeypatch):
    seen = []
    real = training_grid.build_averaged

    def averaged(stage, ema, **changes):
        own = real(stage, ema, **changes)
        for name, parameter in own.net.named_parameters():
            assert torch.equal(parameter, ema.state_dict()[name])
        seen.append(own.net is stage.net)
        return own

    monkeypatch.setattr(training_grid, "build_averaged", averaged)
    train(home, GRIDS, steps=2)
    assert seen == [False]


def test_a_missing_picture_of_the_last_step_is_drawn_again(home):
    train(home, GRIDS, steps=3)
    before, first = left(home / "runs/base"), grid(home, 3).read_bytes()
    grid(home, 3).unlink()
    grid(home, 2).unlink()
    train(home, GRIDS, steps=3)
    assert grid(home, 3).read_bytes() == first
    assert not grid(home, 2).exists()
    assert left(home / "runs/base") == before


def test_a_stop_while_drawing_is_obeyed_and_made_up_for(home):
    with pytest.raises(StoppedError, match="after step 2 of 3"):
        train(home, GRIDS, steps=3, told=StopsAtBar("draw"))
    assert not grid(home, 2).exists()
    train(home, GRIDS, steps=3)
    assert grid(home, 2).is_file()
    assert grid(home, 3).is_file()


def test_memory_that_does_not_suffice_costs_the_picture_alone(home, monkeypatch):
    def drawn(*words, **more):
        raise MemoryFloorError("one sample does not fit")

    monkeypatch.setattr(training_grid, "draw_probe", drawn)
    told = Told()
    assert train(home, GRIDS, steps=2, told=told).steps == 2
    assert "no sample grid at step 2: one sample does not fit" in told.lines


def test_samples_that_are_not_finite_are_no_picture(home, monkeypatch):
    monkeypatch.setattr(training_grid, "build_averaged", overflowing)
    told = Told()
    assert train(home, GRIDS, steps=2, told=told).steps == 2
    assert "no sample grid at step 2: the average gives images that are not finite" in told.lines
    assert not grid(home, 2).exists()


def test_tensorboard_gets_the_picture_if_it_is_there(home, monkeypatch):
    shown = []

    class Board:
        def add_scalar(self, name, value, step):
            pass

        def add_image(self, name, image, step, dataformats):
            shown.append((name, image, step, dataformats))

        def close(self):
            shown.append("closed")

    monkeypatch.setattr(training_log, "open_tensorboard", lambda directory, step: Board())
    train(home, GRIDS, steps=2)
    (name, image, step, order), closed = shown
    assert (name, step, order, closed) == ("samples", 2, "HWC", "closed")
    with Image.open(io.BytesIO(grid(home, 2).read_bytes())) as png:
        assert np.array_equal(image, np.asarray(png))


def test_grids_can_be_left_out_and_sr_stages_have_them_too(home):
    train(home, steps=2)
    assert not (home / "runs/base/samples").exists()
    train(home, GRIDS, preset="tiny-sr8-16", small=SR, name="sr", steps=2)
    assert grid(home, 2, "sr").is_file()
