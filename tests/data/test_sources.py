"""Mirrors cdm_cli/data/sources.py: every kind of source gives the same images."""

import io
import os
import pickle
import tarfile

import numpy as np
import pytest

from cdm_cli.data.skips import Skips
from cdm_cli.data.sources import open_source
from cdm_cli.errors import BadInputError, MissingError
from tests.drawings import class_images, pixels, write_folder, write_zip


def write_tar(path, files, mode="w", format=tarfile.PAX_FORMAT):
    with tarfile.open(path, mode, format=format) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def files():
    return class_images(per_class=2)


KINDS = {
    "folder": lambda root, files: write_folder(root / "f", files),
    "stored zip": lambda root, files: write_zip(root / "f.zip", files),
    "deflated zip": lambda root, files: write_zip(root / "f.zip", files, 8),
    "tar": lambda root, files: write_tar(root / "f.tar", files),
    "gnu tar": lambda root, files: write_tar(root / "f.tar", files, format=tarfile.GNU_FORMAT),
    "tar.gz": lambda root, files: write_tar(root / "f.tar.gz", files, "w:gz"),
    "misnamed": lambda root, files: write_zip(root / "f.tar", files),
}


@pytest.mark.parametrize("write", KINDS.values(), ids=KINDS)
def test_every_kind_gives_the_same_files(write, files, tmp_path):
    skips = Skips()
    source = open_source(write(tmp_path, files), skips, tmp_path / "spool")
    assert source.names == sorted(files)
    assert [source.read(i) for i in range(6)] == [files[name] for name in sorted(files)]
    assert source.name.startswith("f")
    assert skips.total == 0


@pytest.mark.parametrize("write", KINDS.values(), ids=KINDS)
def test_a_part_can_travel(write, files, tmp_path):
    source = open_source(write(tmp_path, files), Skips(), tmp_path / "spool")
    part = pickle.loads(pickle.dumps(source.take([4, 1])))
    assert part.names == [source.names[4], source.names[1]]
    assert [part.read(0), part.read(1)] == [source.read(4), source.read(1)]


@pytest.mark.parametrize("write", KINDS.values(), ids=KINDS)
def test_digest_tells_another_listing(write, files, tmp_path):
    one = open_source(write(tmp_path, files), Skips(), tmp_path / "spool").digest()
    assert one == open_source(write(tmp_path, files), Skips(), tmp_path / "spool").digest()
    longer = {name: data + b"\0" * (name == "cat/001.png") for name, data in files.items()}
    other = open_source(write(tmp_path, longer), Skips(), tmp_path / "spool").digest()
    assert other != one


def test_long_and_foreign_names_of_tars(files, tmp_path):
    names = [f"cat/{'x' * 150}/1.png", "apple/" + "ü" * 60 + ".png", "bird/\n.png"]
    for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        path = write_tar(tmp_path / "f.tar", dict.fromkeys(names, b"."), format=format)
        assert open_source(path, Skips(), tmp_path / "s").names == sorted(names)


def test_what_is_no_image_is_counted_and_what_is_junk_is_not(tmp_path):
    names = ["a/1.png", "a/2.JPEG", "a/x.txt", "a/.DS_Store", "__MACOSX/a/1.png", "a/._1.png"]
    for write in (KINDS["folder"], KINDS["stored zip"], KINDS["tar"]):
        skips = Skips()
        source = open_source(write(tmp_path, dict.fromkeys(names, b".")), skips, tmp_path / "s")
        assert source.names == ["a/1.png", "a/2.JPEG"]
        assert list(skips.examples.values()) == [["a/x.txt"]]


def test_dataset_json_at_the_root_is_kept(tmp_path):
    files = {"dataset.json": b"{}", "0/dataset.json": b"[]", "0/1.png": b"."}
    for write in (KINDS["folder"], KINDS["deflated zip"], KINDS["tar"]):
        source = open_source(write(tmp_path, files), Skips(), tmp_path / "s")
        assert source.dataset_json == b"{}"
        assert source.names == ["0/1.png"]


def test_an_npz_gives_pixels(tmp_path):
    x = np.stack([pixels(number=i) for i in range(3)])
    np.savez(tmp_path / "a.npz", x, np.array([2, 0, 1]))
    source = open_source(tmp_path / "a.npz", Skips(), tmp_path / "s")
    assert np.array_equal(source.read(1), x[1])
    assert source.labels.tolist() == [2, 0, 1]


def test_what_is_no_source_is_named(tmp_path):
    with pytest.raises(MissingError, match="nothing does not exist"):
        open_source(tmp_path / "nothing", Skips(), tmp_path / "s")
    (tmp_path / "page.zip").write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(BadInputError, match="begins with b'<!DOCTYPE ht"):
        open_source(tmp_path / "page.zip", Skips(), tmp_path / "s")
    (tmp_path / "empty.tar").write_bytes(b"")
    with pytest.raises(BadInputError, match="is empty"):
        open_source(tmp_path / "empty.tar", Skips(), tmp_path / "s")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BadInputError, match="neither a folder nor a regular file"):
        open_source(tmp_path / "fifo", Skips(), tmp_path / "s")
