"""Mirrors cdm_cli/jobs/sampling/store_images.py: it is told which part is taken."""

import numpy as np
import pytest

from cdm_cli.data.store import open_store
from cdm_cli.jobs.sampling.store_images import choose_part, tell_classes, tell_part
from tests.tiny import Told, arrays_of, write_store

NUM = 6
WHOLE = {"train": arrays_of(NUM, [4]), "val": arrays_of(NUM, [4])}


@pytest.mark.parametrize(
    ("parts", "split", "says"),
    [("train", None, ["data.h5 has no val: taking train, its only part"]), ("train", "train", []),
     ("train val", None, [])],
)  # fmt: skip
def test_the_only_part_is_taken_and_told(tmp_path, monkeypatch, parts, split, says):
    monkeypatch.chdir(tmp_path)
    write_store("data.h5", "prepared", {name: WHOLE[name] for name in parts.split()})
    told = Told()
    with open_store("data.h5") as store:
        tell_part(store, split, told)
        name, _ = choose_part(store, split)
    assert told.lines == says
    assert name == ("train" if says or split else "val")


@pytest.mark.parametrize(
    ("kind", "labels", "num", "says"),
    [
        (
            "samples",
            [0, 0, 0, 1, 1, 2],
            4,
            ["are taken, are of 2 of its 3 classes"],
        ),
        ("samples", [0, 1, 2, 0, 1, 2], 4, []),
        ("samples", [0, 1, 2, 0, 1, 2], 2, []),
        ("samples", [0, 0, 0, 1, 1, 2], None, []),
        ("prepared", [0, 0, 0, 1, 1, 2], 4, []),
    ],
)
def test_samples_that_are_sorted_by_class_are_told_where_some_are_left_out(
    tmp_path, kind, labels, num, says
):
    arrays = arrays_of(NUM, [4]) | {"labels": np.array(labels)}
    part = "" if kind == "samples" else "train"
    write_store(tmp_path / "low.h5", kind, {part: arrays}, classes=("a", "b", "c"))
    told = Told()
    with open_store(tmp_path / "low.h5") as store:
        tell_classes(store, store.parts[part], num, told)
    assert len(told.lines) == len(says)
    for line, words in zip(told.lines, says, strict=True):
        assert words in line
