"""Mirrors cdm_cli/data/store.py."""

import h5py
import numpy as np
import pytest

from cdm_cli.data.store import create, open_store
from cdm_cli.errors import MissingError, StoppedError, WouldOverwriteError
from cdm_cli.jobs.runtime.same_store import resume_or_create
from tests.data.stores import CLASSES, arrays_of, fill, prepared_spec, samples_spec


@pytest.mark.parametrize("spec", [samples_spec(), prepared_spec()])
def test_hdf5_itself_reads_what_we_wrote(tmp_path, spec):
    path = tmp_path / "a.h5"
    with create(path, spec) as store:
        fill(store)
    with h5py.File(path) as file, open_store(path) as store:
        assert [name.decode() for name in file["classes"][:]] == list(CLASSES) == store.classes
        assert file.attrs["kind"].decode() == spec.kind
        for part in store.parts.values():
            for name, member in part.members.items():
                dataset = file[f"{part.name}/{name}"]
                assert dataset.dtype == np.dtype(member.dtype)
                assert dataset.chunks is None
                np.testing.assert_array_equal(dataset[:], part.map_member(name))


def test_an_interrupted_store_ends_in_the_same_bytes(tmp_path):
    with create(tmp_path / "a.h5", samples_spec()) as store:
        fill(store)
    with resume_or_create(tmp_path / "b.h5", samples_spec()) as store:
        store.parts[""].write_block(1, arrays_of(store.parts[""], 1))
        assert not store.finished
        with pytest.raises(MissingError, match="2 of 3 blocks"):
            store.require_finished()
    with resume_or_create(tmp_path / "b.h5", samples_spec()) as store:
        assert store.parts[""].list_missing() == [0, 2]
        fill(store)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.h5"]


def test_a_store_is_never_created_over_another(tmp_path):
    path = tmp_path / "a.h5"
    create(path, samples_spec()).close()
    with pytest.raises(WouldOverwriteError, match="exists"):
        create(path, samples_spec())


def test_one_job_at_a_time_but_its_processes_share(tmp_path):
    path = tmp_path / "a.h5"
    with resume_or_create(path, samples_spec()) as store:
        with pytest.raises(StoppedError, match=r"process \d+ on "):
            open_store(path, writable=True)
        with open_store(path, writable=True, shared=True) as other:
            fill(other)
        assert store.finished
        with open_store(path) as reader:
            assert reader.finished
    open_store(path, writable=True).close()
