"""Mirrors cdm_cli/jobs/sampling/rows.py: which part of a store is taken is never a secret."""

import pytest

from cdm_cli.data.store import open_store
from cdm_cli.jobs.sampling.rows import choose_part, tell_part
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
