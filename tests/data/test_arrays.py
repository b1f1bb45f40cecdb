"""Mirrors cdm_cli/data/arrays.py: an ADM .npz read in place, and what is refused."""

import io
import zipfile

import numpy as np
import pytest

from cdm_cli.data.arrays import open_arrays
from cdm_cli.data.zips import list_zip_members
from cdm_cli.errors import BadInputError
from tests.drawings import write_zip

X = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)


def opened(path, spool=None):
    return open_arrays(path.name, path, list_zip_members(path), spool or path.parent / "spool")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("x", [X, X[..., :1], X[..., 0], X[..., [0, 1, 2, 0]]])
def test_rows_are_the_rows(save, x, tmp_path):
    save(tmp_path / "a.npz", x)
    source = opened(tmp_path / "a.npz")
    whole = x.reshape(5, 4, 6, -1)
    assert all(np.array_equal(source.read(i), whole[i]) for i in range(5))
    part = source.take([3, 1])
    assert np.array_equal(part.read(0), whole[3])
    assert part.names == ["arr_0[3]", "arr_0[1]"]
    assert source.labels is None


@pytest.mark.parametrize("dtype", ["u1", "i4", "i8", ">i8"])
def test_labels_of_any_whole_type(dtype, tmp_path):
    np.savez(tmp_path / "a.npz", X, np.array([0, 2, 1, 1, 0], dtype))
    source = opened(tmp_path / "a.npz")
    assert source.labels.tolist() == [0, 2, 1, 1, 0]
    assert source.labels.dtype == np.int64
    assert source.take([1, 2]).labels.tolist() == [2, 1]


def npy(array, **changes):
    stream = io.BytesIO()
    np.save(stream, array, **changes)
    return stream.getvalue()


BAD = {
    "no arr_0": ({"mu.npy": npy(X)}, "holds mu; images are expected in arr_0"),
    "float": ({"arr_0.npy": npy(X / 255)}, "arr_0 is float64, not uint8"),
    "objects": (
        {"arr_0.npy": npy(np.array([{}]), allow_pickle=True)},
        "arr_0 is object, not uint8",
    ),
    "5 channels": ({"arr_0.npy": npy(np.zeros((2, 3, 3, 5), np.uint8))}, "C from 1 to 4"),
    "flat": ({"arr_0.npy": npy(X.ravel())}, "not \\[N, H, W, C\\]"),
    "fortran": ({"arr_0.npy": npy(np.asfortranarray(X))}, "Fortran order"),
    "no npy": ({"arr_0.npy": b"GIF89a"}, "without a readable header"),
    "short": ({"arr_0.npy": npy(X)[:-1]}, "holds 359 bytes, not the 360"),
    "huge claim": (
        {"arr_0.npy": npy(X).replace(b"(5, 4, 6, 3)", b"(9999999, 999, 999, 3)")},
        "holds 370 bytes, not the",
    ),
    "float labels": ({"arr_0.npy": npy(X), "arr_1.npy": npy(np.zeros(5))}, "arr_1 is float64"),
    "few labels": ({"arr_0.npy": npy(X), "arr_1.npy": npy(np.arange(4))}, "not 5 whole numbers"),
    "negative": (
        {"arr_0.npy": npy(X), "arr_1.npy": npy(np.array([0, 1, -3, 0, -1]))},
        "arr_1\\[2\\] is -3",
    ),
    "labels without end": (  # as many names of classes would be made
        {"arr_0.npy": npy(X), "arr_1.npy": npy(np.array([0, 2**40, 1, 0, 1]))},
        "arr_1\\[1\\] is 1099511627776, no class from 0 up to 1048575",
    ),
    "code in the header": (
        {"arr_0.npy": npy(X).replace(b"'shape': (5, 4, 6, 3)", b"'shape': print((5,4))")},
        "without a readable header",
    ),
}


@pytest.mark.parametrize(("files", "message"), BAD.values(), ids=BAD)
def test_what_is_refused(files, message, tmp_path):
    path = write_zip(tmp_path / "a.npz", files)
    with pytest.raises(BadInputError, match=message):
        opened(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_changed_pixel_is_noticed(method, tmp_path):
    path = write_zip(tmp_path / "a.npz", {"arr_0.npy": npy(X)}, method)
    data = bytearray(path.read_bytes())
    data[250] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadInputError, match=r"damaged|checksum"):
        opened(path)


def test_digest_depends_on_pixels_rows_and_labels(tmp_path):
    def digest(x, labels=None):
        np.savez(tmp_path / "a.npz", *(a for a in (x, labels) if a is not None))
        return opened(tmp_path / "a.npz").digest()

    y = np.arange(5)
    found = [digest(X), digest(255 - X), digest(X, y), digest(X, y[::-1]), digest(X[:4])]
    assert len(set(found)) == 5
    assert digest(X) == found[0]
