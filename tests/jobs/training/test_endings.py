"""Mirrors cdm_cli/jobs/training/endings.py: training uses no byte that was not written so."""

import os
import shutil

import pytest

from cdm_cli.cascade.saved import list_checkpoints
from cdm_cli.data.store import open_store
from cdm_cli.errors import BadInputError
from tests.tiny import Told, arrays_of, write_store
from tests.trained import CLASSIFIER, SMALL, SR, left, train, write_data


def spoil(path, name, data):
    """Write over what a store holds under a name, in place."""
    with open_store(path) as store:
        place = store.parts["train"]._opened.layout.offsets[name]
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)


@pytest.mark.parametrize(
    ("name", "data"), [("train/images/8", bytes(range(192))), ("train/labels", bytes(24 * 8))]
)
def test_damaged_data_are_not_trained_on(tmp_path, name, data):
    write_data(tmp_path / "data.h5")
    spoil(tmp_path / "data.h5", name, data)
    with pytest.raises(BadInputError, match=r"data\.h5: samples 0\.\.23 of train") as damaged:
        train(tmp_path)
    assert (damaged.value.exit_code, damaged.value.kept) == (65, "no good checkpoint was made")


@pytest.mark.parametrize(
    ("preset", "small", "split"),
    [
        ("tiny-base8", SMALL, "train"), ("tiny-sr8-16", SR, "train"), ("tiny-sr8-16", SR, "val"),
        ("tiny-classifier", CLASSIFIER, "train"), ("tiny-classifier", CLASSIFIER, "val"),
    ],
)  # fmt: skip
def test_labels_that_are_no_classes_are_bad_input(tmp_path, preset, small, split):
    """With a right digest, as a stranger's file may have them; those of val name rows of grids."""
    parts = {"train": arrays_of(24, (8, 16)), "val": arrays_of(12, (8, 16))}
    write_store(tmp_path / "data.h5", "prepared", parts)
    with open_store(tmp_path / "data.h5", writable=True) as store:
        part = store.parts[split]
        block = part.read_block(0)
        part.put_block(0, {**block, "labels": block["labels"] + 7})
    with pytest.raises(BadInputError, match=r"labels outside 0\.\.2, the first is 7"):
        train(tmp_path, preset=preset, small=small, steps=2)


def test_data_rewritten_under_a_run_end_it_before_the_next_checkpoint(tmp_path):
    """They were good at their first use; nothing of what came after is kept."""
    write_data(tmp_path / "data.h5")

    def interfere(done):
        if done == 3:
            spoil(tmp_path / "data.h5", "train/images/8", bytes(192))

    with pytest.raises(BadInputError, match=r"samples 0\.\.23 of train do not have") as changed:
        train(tmp_path, steps=9, told=Told(interfere))
    (good,) = list_checkpoints(tmp_path / "runs/base")
    assert changed.value.kept == f"the last good checkpoint is {good}"
    assert good.name == "step-00000002"


def test_data_cut_short_under_a_run_end_it(tmp_path):
    write_data(tmp_path / "data.h5")
    cut = lambda done: os.truncate(tmp_path / "data.h5", 4096) if done == 3 else None  # noqa: E731
    with pytest.raises(BadInputError, match="became shorter") as changed:
        train(tmp_path, steps=9, told=Told(cut))
    assert changed.value.exit_code == 65
    assert "step-00000002" in changed.value.kept


def test_data_that_are_only_touched_or_exchanged_change_nothing(tmp_path):
    data = write_data(tmp_path / "data.h5")
    train(tmp_path, name="undisturbed")

    def interfere(done):
        if done == 1:
            os.utime(data)
        if done == 3:
            shutil.copy(data, tmp_path / "copy.h5")
            (tmp_path / "copy.h5").rename(data)

    told = Told(interfere)
    train(tmp_path, told=told)
    said = [line for line in told.lines if "data.h5 is another file now" in line]
    assert len(said) == 1
    assert left(tmp_path / "runs/base") == left(tmp_path / "runs/undisturbed")
