"""Mirrors cdm_cli/jobs/exchange/export{,_plan,_folder,_npz}.py: every program can read them."""

import json
import os
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cdm_cli.data import disk, durable
from cdm_cli.data.store import open_store
from cdm_cli.errors import (
    BadInputError,
    MissingError,
    StoppedError,
    UsageError,
    WouldOverwriteError,
)
from cdm_cli.jobs.exchange.export import run
from cdm_cli.options.files import ExportOptions
from tests.asking import as_typed
from tests.tiny import CLASSES, Told, arrays_of, write_store

NAMES = ("disk", "../..", "tench, Tinca tinca")


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def arrays():
    return noisy(arrays_of(150, [8]))


def noisy(arrays):
    rng = np.random.default_rng(0)
    for name, array in arrays.items():
        if name.startswith("images/"):
            arrays[name] = rng.integers(0, 256, array.shape).astype(np.uint8)
    return arrays


def stored(arrays, classes=CLASSES, path="samples.h5", **changes):
    return write_store(path, "samples", {"": arrays}, classes=classes, **changes)


def exported(out="out", told=None, **changes):
    return run(
        as_typed(ExportOptions, **({"store": "samples.h5", "out": out} | changes)), told or Told()
    )


def files(root="out"):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in Path(root).rglob("*")
        if path.is_file()
    }


def test_a_folder_of_png_holds_every_pixel(arrays):
    stored(arrays, NAMES)
    found = exported()
    assert (found.format, found.images, found.made, found.channels) == ("png", 150, 150, 3)
    folders = ("disk", "%2E.%2F.%2E", "tench, Tinca tinca")
    for row, label in enumerate(arrays["labels"]):
        with Image.open(f"out/{folders[label]}/{row:08d}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), arrays["images/8"][row])
    told = json.loads(Path("out/classes.json").read_text())
    assert told == [
        {"label": k, "name": name, "folder": folder}
        for k, (name, folder) in enumerate(zip(NAMES, folders, strict=True))
    ]
    table = json.loads(Path("out/dataset.json").read_text())
    assert table["labels"][4] == ["%2E.%2F.%2E/00000004.png", 1]
    assert table["classes"] == list(NAMES)
    assert json.loads(Path("out/export.json").read_text())["finished"] is True
    assert len(files()) == 153
    assert sorted(path.name for path in Path().iterdir()) == ["out", "samples.h5"]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (4, "RGBA")])
def test_every_number_of_channels(channels, mode):
    arrays = arrays_of(4, [8])
    arrays["images/8"] = np.random.default_rng(0).integers(0, 256, (4, 8, 8, channels), np.uint8)
    stored(arrays)
    exported()
    with Image.open("out/disk/00000000.png") as image:
        assert image.mode == mode
        np.testing.assert_array_equal(
            np.asarray(image).reshape(8, 8, channels), arrays["images/8"][0]
        )
    exported("a.npz")
    with np.load("a.npz") as loaded:
        np.testing.assert_array_equal(loaded["arr_0"], arrays["images/8"])
    if channels > 1:
        with pytest.raises(UsageError, match="JPEG has no alpha"):
            exported("jpg", format="jpeg")


def test_jpeg_is_close(arrays):
    smooth = arrays_of(9, [32])
    stored(smooth)
    found = exported(format="jpeg")
    assert found.format == "jpeg"
    with Image.open("out/ring/00000001.jpg") as image:
        assert image.format == "JPEG"
        apart = np.abs(np.asarray(image).astype(int) - smooth["images/32"][1]).mean()
    assert 0 < apart < 3
    assert exported(format="jpeg").made == 0


@pytest.mark.parametrize("classes", [CLASSES, ()])
def test_an_npz_that_numpy_and_zipfile_read(arrays, classes):
    stored(arrays, classes)
    found = exported("samples.npz")
    assert (found.format, found.made) == ("npz", 150)
    with np.load("samples.npz") as loaded:
        assert set(loaded.files) == {"arr_0", "arr_1"}
        np.testing.assert_array_equal(loaded["arr_0"], arrays["images/8"])
        np.testing.assert_array_equal(loaded["arr_1"], arrays["labels"])
        assert loaded["arr_0"].dtype == np.uint8
        assert loaded["arr_1"].dtype == np.int64
    with zipfile.ZipFile("samples.npz") as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    assert exported("samples.npz").made == 0
    exported("again.npz")
    assert Path("samples.npz").read_bytes() == Path("again.npz").read_bytes()


def test_an_npz_is_written_block_by_block(arrays, monkeypatch):
    stored(arrays)
    largest = []
    write = disk.pwrite_all
    monkeypatch.setattr(disk, "pwrite_all", lambda *a: (largest.append(len(a[2])), write(*a))[1])
    exported("samples.npz")
    assert max(largest) == 64 * 8 * 8 * 3


def test_split_resolution_and_num():
    write_store(
        "data.h5", "prepared", {"train": arrays_of(30, [8, 16]), "val": arrays_of(90, [8, 16])}
    )
    exported("a.npz", store="data.h5", resolution=8)
    exported("b.npz", store="data.h5", split="train", num=9)
    with np.load("a.npz") as a, np.load("b.npz") as b, open_store("data.h5") as store:
        np.testing.assert_array_equal(a["arr_0"], store.parts["val"].images(8))
        assert b["arr_0"].shape == (9, 16, 16, 3)
        assert np.bincount(b["arr_1"]).tolist() == [3, 3, 3]
    exported("some", store="data.h5", num=6)
    assert len(list(Path("some").rglob("*.png"))) == 6
    with pytest.raises(UsageError, match="--resolution 32"):
        exported("c.npz", store="data.h5", resolution=32)
    with pytest.raises(UsageError, match="a folder is written"):
        exported("c.npz", store="data.h5", format="png")


def test_ids_that_do_not_increase_keep_their_place(arrays):
    arrays["ids"] = arrays["ids"][::-1].copy() // 2
    stored(arrays)
    exported()
    assert "disk/00000000-id74.png" in files()
    assert "disk/00000003-id73.png" in files()


class Killed(BaseException):
    """What a killed process does next: nothing."""


@pytest.mark.parametrize("out", ["out", "out.npz"])
def test_killed_at_any_operation_the_same_command_ends_in_the_same_files(out):
    arrays = noisy(arrays_of(70, [8]))
    for name in arrays:
        arrays[name] = arrays[name][[0, 1, 3]]
    stored(arrays, block_size=2)

    def now():
        return files() if out == "out" else {"": Path(out).read_bytes()}

    ios = []
    with disk.announce_to(ios.append):
        exported(out)
    wanted = now()
    for last in range(len(ios)):
        disk.remove_tree(Path("out"))
        disk.unlink(Path("out.npz"))
        left = iter(range(last))

        def kill(io, left=left):
            if next(left, None) is None:
                raise Killed

        with pytest.raises(Killed), disk.announce_to(kill):
            exported(out)
        exported(out)
        assert now() == wanted, last
    assert len(ios) > 15


def test_what_is_there_is_not_written_again(arrays):
    stored(arrays)
    exported()
    first = {path: path.stat().st_ino for path in Path("out").rglob("*.png")}
    Path("out/disk/00000003.png").unlink()
    assert exported().made == 1
    now = {path: path.stat().st_ino for path in Path("out").rglob("*.png")}
    assert [path.name for path in first if first[path] != now[path]] in (["00000003.png"], [])
    assert len(now) == 150


def test_what_killed_writers_left_is_removed(arrays):
    stored(arrays)
    exported()
    left = Path(f"out/disk/.00000003.png.0123abcd{durable.PARTIAL}")
    left.write_bytes(b"half")
    assert exported().made == 0
    assert not left.exists()


@pytest.mark.parametrize("out", ["out", "o.npz"])
def test_stopping_between_blocks(arrays, out):
    stored(arrays)
    with pytest.raises(StoppedError, match="SIGTERM"):
        exported(out, Told(lambda done: signal.raise_signal(signal.SIGTERM)))
    assert exported(out).made == (150 if out == "o.npz" else 150 - 64)
    assert not [path for path in Path().rglob("*") if path.name.endswith(durable.PARTIAL)]


def test_nothing_of_others_is_overwritten(arrays):
    stored(arrays)
    for name in ("full", "file", "other.npz"):
        if name == "full":
            Path("full").mkdir()
            Path("full/mine.txt").write_text("mine")
        else:
            Path(name).write_text("mine")
        with pytest.raises(WouldOverwriteError, match=name):
            exported(name)
    os.mkfifo("pipe.npz")
    with pytest.raises(WouldOverwriteError, match="pipe"):
        exported("pipe.npz")
    Path("pipe.npz").unlink()
    assert files("full") == {"mine.txt": b"mine"}
    assert Path("other.npz").read_text() == "mine"
    exported("out", num=9)
    before = files()
    with pytest.raises(WouldOverwriteError, match="--num was 9, is 10"):
        exported("out", num=10)
    with pytest.raises(WouldOverwriteError, match="format"):
        exported("out", num=9, format="jpeg")
    assert files() == before
    exported("a.npz", num=9)
    with pytest.raises(WouldOverwriteError, match=r"a\.npz exists.*Next: -o a-2\.npz$"):
        exported("a.npz", num=8)
    Image.new("RGB", (8, 8)).save("out/disk/00000000.png")
    with pytest.raises(WouldOverwriteError, match=r"00000000\.png is not this.*Next: -o out-2$"):
        exported("out", num=9)


def test_an_empty_folder_is_used(arrays):
    stored(arrays)
    Path("out").mkdir()
    assert exported().made == 150


@pytest.mark.parametrize("out", ["out", "out.npz"])
def test_a_damaged_block_is_noticed_and_its_samples_named(arrays, out):
    stored(arrays)
    with open_store("samples.h5") as store:
        place = store.parts[""].images(8).offset + 64 * 192
    data = bytearray(Path("samples.h5").read_bytes())
    data[place] ^= 1
    Path("samples.h5").write_bytes(data)
    with pytest.raises(BadInputError, match=r"samples 64\.\.127 do not have the digest"):
        exported(out)
    assert not Path("out.npz").exists()
    if out == "out":
        assert json.loads(Path("out/export.json").read_text())["finished"] is False


def test_an_unfinished_store_is_refused(arrays):
    stored(arrays, blocks=2)
    with pytest.raises(MissingError, match="1 of 3 blocks"):
        exported()
    assert not Path("out").exists()
