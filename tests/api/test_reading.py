"""Mirrors cdm_cli/api/reading.py."""

import numpy as np
import pytest

import cdm_cli as cdm
from cdm_cli.errors import BadInputError, MismatchError, MissingError, UsageError
from tests.tiny import arrays_of, write_store


@pytest.fixture
def prepared(tmp_path):
    parts = {"train": arrays_of(30, (8, 16)), "val": arrays_of(12, (8, 16), seed=1)}
    return write_store(tmp_path / "data.h5", "prepared", parts)


def test_a_split_at_a_resolution(prepared):
    found = cdm.read(prepared, split="train", resolution=8)
    expected = arrays_of(30, (8, 16))
    np.testing.assert_array_equal(found.images, expected["images/8"])
    np.testing.assert_array_equal(found.labels, expected["labels"])
    found.images[0] = 0  # an array of one's own, not the file
    assert cdm.read(str(prepared)).images.shape == (12, 16, 16, 3)  # val, the highest
    with cdm.open_store(prepared) as store:
        assert np.bincount(cdm.read(store, num=6).labels).tolist() == [2, 2, 2]
        assert store.parts["val"].num == 12  # still open


def test_states_that_were_kept(tmp_path):
    arrays = arrays_of(5, (8,), z=(3, 7))
    path = write_store(tmp_path / "low.h5", "samples", {"": arrays})
    found = cdm.read(path, z=[7, 0])
    np.testing.assert_array_equal(found.z[7], arrays["z/7"])
    assert list(found.z) == [7]
    assert list(cdm.read(path, z=3).z) == [3]
    assert cdm.read(path).z == {}
    with pytest.raises(MismatchError, match="has no z_s for s = 4, only for 3, 7"):
        cdm.read(path, z=[4])


def test_what_is_not_there(prepared, tmp_path):
    for kind, words, wrong in (
        (UsageError, "--resolution 32", {"resolution": 32}),
        (UsageError, "--split test", {"split": "test"}),
        (UsageError, "--num 13", {"num": 13}),
        (UsageError, "num = 0: expected 1 or more", {"num": 0}),
        (UsageError, "num = 2.5: expected a whole number", {"num": 2.5}),
    ):
        with pytest.raises(kind, match=words):
            cdm.read(prepared, **wrong)
    with pytest.raises(MissingError):
        cdm.read(tmp_path / "nosuch.h5")
    half = write_store(tmp_path / "half.h5", "samples", {"": arrays_of(80, (8,))}, blocks=1)
    with pytest.raises(MissingError, match="unfinished"):
        cdm.read(half)


def test_a_flipped_bit_is_found(prepared):
    data = bytearray(prepared.read_bytes())
    data[data.index(arrays_of(12, (8, 16), seed=1)["images/16"].tobytes())] ^= 1
    prepared.write_bytes(data)
    with pytest.raises(BadInputError, match="digest"):
        cdm.read(prepared)
