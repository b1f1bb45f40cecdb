"""Mirrors cdm_cli/jobs/training/plan.py: preset, flags and data become one plan."""

import json

import numpy as np
import pytest

from cdm_cli.__version__ import __version__
from cdm_cli.cascade.stagefile import write_stage_file
from cdm_cli.config import SamplingDefaults, StageConfig
from cdm_cli.data.store import open_store
from cdm_cli.errors import MismatchError, UsageError, WouldOverwriteError
from cdm_cli.jobs.training.plan import (
    FREE,
    check_same,
    describe_data,
    find_resolution,
    find_training_part,
    fit_to_data,
    plan_from_flags,
)
from cdm_cli.options.sampling import Compute
from cdm_cli.options.training import TrainOptions
from cdm_cli.plans import StageFile
from tests.asking import as_typed
from tests.tiny import CLASSES, arrays_of, write_store


@pytest.fixture
def store(tmp_path):
    parts = {"train": arrays_of(12, (8, 16)), "val": arrays_of(6, (8, 16))}
    with open_store(write_store(tmp_path / "data.h5", "prepared", parts)) as found:
        yield found


def options(tmp_path, **changes):
    values = {"name": "base", "preset": "tiny-base8", "runs": tmp_path / "runs"}
    return as_typed(TrainOptions, **(values | changes))


def written(asked, store):
    """Let the run of these options exist."""
    made = fit_to_data(plan_from_flags(asked), store, asked)
    file = StageFile(cdm_version=__version__, plan=made, data=describe_data(store))
    asked.directory.mkdir(parents=True)
    write_stage_file(asked.directory, file)
    return made


def test_flags_are_short_for_settings(tmp_path):
    asked = options(tmp_path, steps=7, batch_size=3, seed=5, compute=Compute(precision="bf16"))
    training = plan_from_flags(asked).training
    assert (training.steps, training.batch_size, training.seed) == (7, 3, 5)
    assert training.precision == "bf16"
    longer = options(tmp_path, overrides=("training.steps=7", "model.dropout=0.5"))
    assert plan_from_flags(longer).training.steps == 7
    assert plan_from_flags(longer).stage.model.dropout == 0.5


def test_without_preset_or_run_there_is_nothing_to_train(tmp_path):
    with pytest.raises(UsageError, match="must say what to train"):
        plan_from_flags(options(tmp_path, preset=None))


def test_a_run_that_exists_is_its_own_preset(tmp_path, store):
    made = written(options(tmp_path, overrides=("model.dropout=0.5",)), store)
    again = options(tmp_path, preset=None)
    assert fit_to_data(plan_from_flags(again), store, again) == made


def test_classes_and_channels_are_those_of_the_data(tmp_path, store):
    asked = options(tmp_path)
    model = fit_to_data(plan_from_flags(asked), store, asked).stage.model
    assert (model.num_classes, model.channels, model.resolution) == (len(CLASSES), 3, 8)
    asked = options(tmp_path, overrides=("model.num_classes=0",))
    assert fit_to_data(plan_from_flags(asked), store, asked).stage.model.num_classes == 0


@pytest.mark.parametrize(
    ("preset", "typed", "found"),
    [
        ("tiny-base8", "model.num_classes=5", len(CLASSES)),
        ("tiny-base8", "model.channels=1", 3),
        ("tiny-classifier", "num_classes=5", len(CLASSES)),
    ],
)
def test_other_classes_or_channels_than_those_of_the_data_are_refused(
    preset, typed, found, tmp_path, store
):
    asked = options(tmp_path, preset=preset, overrides=(typed,))
    with pytest.raises(UsageError, match=rf"--set {typed}: .*data.h5 has {found}"):
        fit_to_data(plan_from_flags(asked), store, asked)


def test_a_classifier_takes_the_highest_resolution_unless_told(tmp_path, store):
    asked = options(tmp_path, preset="tiny-classifier")
    made = fit_to_data(plan_from_flags(asked), store, asked)
    assert (find_resolution(made.stage), made.stage.num_classes) == (16, 3)
    asked = options(tmp_path, preset="tiny-classifier", overrides=("resolution=8",))
    assert find_resolution(fit_to_data(plan_from_flags(asked), store, asked).stage) == 8


@pytest.mark.parametrize(
    ("changes", "missing", "advised"),
    [
        ({"preset": "tiny-sr16-32"}, 32, "model.resolution=16"),
        ({"preset": "cifar-base32"}, 32, "model.resolution=8"),
        (
            {"preset": "tiny-sr8-16", "overrides": ("conditioning.resolution=4",)},
            4, "conditioning.resolution=8",
        ),
        ({"preset": "tiny-classifier", "overrides": ("resolution=32",)}, 32, "resolution=16"),
    ],
)  # fmt: skip
def test_a_resolution_that_the_store_lacks_is_a_mismatch(
    changes, missing, advised, tmp_path, store
):
    asked = options(tmp_path, **changes)
    message = rf"images of 8, 16, the stage needs {missing}"
    with pytest.raises(MismatchError, match=message) as caught:
        fit_to_data(plan_from_flags(asked), store, asked)
    assert caught.value.next.endswith(f"or --set {advised}")


def order(asked):
    """Return the virtual ranks of a plan, and what its random numbers are keyed by."""
    training = plan_from_flags(asked).training
    return training.virtual_ranks, training.keyed_by


def test_a_training_adds_up_in_one_order_where_asked(tmp_path):
    assert order(options(tmp_path)) == (0, "place")
    assert order(options(tmp_path, exact=True)) == (8, "place")
    assert order(options(tmp_path, exact=True, batch_size=12)) == (4, "place")
    sixteen = ("training.virtual_ranks=16",)
    assert order(options(tmp_path, overrides=sixteen)) == (16, "place")
    assert order(options(tmp_path, overrides=sixteen, exact=False)) == (0, "place")
    with pytest.raises(UsageError, match="a batch of 7 has no two equal halves") as refused:
        plan_from_flags(options(tmp_path, exact=True, batch_size=7))
    assert refused.value.next == "--batch-size 8"
    for ranks, batch, said in (
        (3, 12, "virtual_ranks 3: expected a power of two"),
        (8, 12, "no 8 equal parts"),
    ):
        wrong = (f"training.virtual_ranks={ranks}",)
        with pytest.raises(UsageError, match=said):
            plan_from_flags(options(tmp_path, overrides=wrong, batch_size=batch))


@pytest.mark.parametrize("preset", [None, "tiny-base8"])
def test_a_training_goes_on_as_it_was_begun(preset, tmp_path, store):
    written(options(tmp_path, exact=True), store)
    asked = options(tmp_path, preset=preset)
    assert order(asked) == (8, "place")
    check_same(
        asked.directory, fit_to_data(plan_from_flags(asked), store, asked), describe_data(store)
    )
    otherwise = options(tmp_path, preset=preset, exact=False)
    made = fit_to_data(plan_from_flags(otherwise), store, otherwise)
    with pytest.raises(WouldOverwriteError, match=r"training\.virtual_ranks was 8"):
        check_same(otherwise.directory, made, describe_data(store))


@pytest.mark.parametrize("preset", [None, "tiny-base8"])
def test_an_older_training_keeps_its_keys(preset, tmp_path, store):
    asked = options(tmp_path)
    written(asked, store)
    path = asked.directory / "stage.json"
    file = json.loads(path.read_text())
    assert file["plan"]["training"].pop("keyed_by") == "place"
    path.write_text(json.dumps(file))
    assert order(options(tmp_path, preset=preset)) == (0, "rank")


def test_what_changes_no_weight_may_change(tmp_path, store):
    asked = options(tmp_path)
    made = written(asked, store)
    values = {
        "steps": 9, "log_every": 9, "save_every": 9, "grid_every": 9, "sample_s": 9, "keep": 9,
        "micro_batch": 9, "gradient_checkpointing": True,
    }  # fmt: skip
    assert set(values) == FREE
    training = made.training.model_copy(update=values)
    check_same(
        asked.directory, made.model_copy(update={"training": training}), describe_data(store)
    )
    assert isinstance(made.stage, StageConfig)
    stage = made.stage.model_copy(update={"sampling": SamplingDefaults(sampler="ddim", steps=3)})
    check_same(asked.directory, made.model_copy(update={"stage": stage}), describe_data(store))


def test_all_else_must_stay_and_the_first_four_differences_are_told(tmp_path, store):
    asked = options(tmp_path, overrides=("training.lr=0.001",))
    made = written(asked, store)
    changes = {"lr": 9.0, "warmup": 9, "ema_decay": 0.5, "flip": False, "seed": 9}
    other = made.model_copy(update={"training": made.training.model_copy(update=changes)})
    with pytest.raises(WouldOverwriteError) as refused:
        check_same(asked.directory, other, describe_data(store))
    told = str(refused.value)
    assert "training.lr was 0.001, is 9.0" in told
    assert "and 1 more" in told
    data = describe_data(store).model_copy(update={"digest": "0" * 64})
    with pytest.raises(WouldOverwriteError, match="data was"):
        check_same(asked.directory, made, data)


def test_data_info_counts_both_splits(tmp_path, store):
    info = describe_data(store)
    assert (info.name, info.num_train, info.num_val) == ("data.h5", 12, 6)
    assert info.classes == CLASSES
    assert info.digest == store.digest


def test_samples_can_be_trained_on_as_a_whole(tmp_path):
    path = write_store(tmp_path / "samples.h5", "samples", {"": arrays_of(10, (8,))})
    with open_store(path) as store:
        assert find_training_part(store).num == 10
        assert describe_data(store).num_val == 0


def test_classes_without_training_images_are_recorded(tmp_path, store):
    assert "without_images" not in describe_data(store).model_dump_json()  # as it ever was
    arrays = arrays_of(10, (8,)) | {"labels": np.arange(10) % 2 * 2}
    path = write_store(
        tmp_path / "gap.h5", "prepared", {"train": arrays, "val": arrays_of(6, (8,))}
    )
    with open_store(path) as gap:
        info = describe_data(gap)
    assert info.without_images == (1,)
    assert type(info).model_validate_json(info.model_dump_json()) == info
