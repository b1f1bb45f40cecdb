"""Mirrors cdm_cli/data/labels.py and beside.py: which class an image has, and how it is told."""

import io
import json
import tarfile

import pytest

from cdm_cli.data.labels import find_labels, require_images
from cdm_cli.data.skips import Skips
from cdm_cli.data.sources import open_source
from cdm_cli.errors import BadInputError
from tests.drawings import write_folder, write_zip


def write_tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


WRITERS = {
    "folder": lambda root, files: write_folder(root / "f", files),
    "zip": lambda root, files: write_zip(root / "f.zip", files),
    "tar": lambda root, files: write_tar(root / "f.tar", files),
}


@pytest.fixture(params=WRITERS.values(), ids=WRITERS)
def read(request, tmp_path):
    """Read files of any kind of source: labels by name, what is said, and what was skipped."""

    def read(files, table=None):
        skips, path = Skips(), request.param(tmp_path, files)
        found = find_labels(open_source(path, skips, tmp_path / "spool"), table, skips)
        told = [found.classes[k] if found.classes else k for k in found.y.tolist()]
        return dict(zip(found.source.names, told, strict=True)), found.how, skips.counts

    return read


def images(*names):
    return dict.fromkeys(names, b".")


def test_a_folder_that_holds_an_archive_names_it(tmp_path):
    """As a data set is downloaded into a directory of its own."""
    for names, advice in (
        (images("notes.txt"), "a folder, .zip, .tar or .npz of .png, .jpg or .webp images"),
        (images("labels.csv.gz"), "a folder, .zip, .tar or .npz of .png, .jpg or .webp images"),
        (images("a b.zip", "notes.txt"), f"'{tmp_path}/f/a b.zip' in its place"),
    ):
        path, skips = write_folder(tmp_path / "f", names), Skips()
        found = find_labels(open_source(path, skips, tmp_path / "spool"), None, skips)
        with pytest.raises(BadInputError, match="holds no image that can be used") as error:
            require_images(found, path, skips)
        assert error.value.next == advice


SHARDS = images("00000/a.png", "00000/b.png", "00001/c.png")


@pytest.mark.parametrize("labels", [None, [], {}])
def test_folders_are_shards_where_dataset_json_says_that_there_are_no_labels(read, labels):
    files = SHARDS | {"dataset.json": json.dumps({"labels": labels}).encode()}
    found, how, _ = read(files)
    assert set(found.values()) == {"all"}
    assert "dataset.json has no labels" in how
    found, how, _ = read(files, "folders")
    assert list(found.values()) == ["00000", "00000", "00001"]


def test_cls_files_are_labels(read):
    files = {}
    for i, k in enumerate([10, 2, 0]):
        files |= {f"{i:06d}.jpg": b".", f"{i:06d}.cls": f"{k}\n".encode(), f"{i:06d}.json": b"{}"}
    found, how, skipped = read(files)
    assert list(found.values()) == [10, 2, 0]
    assert how == ".cls files beside the images"
    assert skipped == {"not .png, .jpg, .jpeg or .webp": 3}
    assert read(files, "folders")[0] == dict.fromkeys(found, "all")


def test_names_in_cls_files_and_names_of_images_with_several_dots(read):
    files = images("s/1.left.png", "s/1.right.png", "s/2.left.png", "t/1.png")
    found, *_ = read(files | {"s/1.cls": b"cat", "s/2.left.cls": b"dog", "t/1.cls": b"cat"})
    assert list(found.values()) == ["cat", "cat", "dog", "cat"]


@pytest.mark.parametrize("key", ["label", "cls", "class", "class_id", "class_name"])
def test_json_with_a_label_is_one(read, key):
    files = images("0.png", "1.png", "2.png")
    told = {"0": {"name": "0.png", key: 4}, "1": {"name": "1.png", key: 1.0}}
    side = {f"{i}.json": json.dumps(value).encode() for i, value in told.items()}
    found, how, skipped = read(files | side | {"2.json": b"[broken"})
    assert found == {"0.png": 4, "1.png": 1}
    assert how == ".json files beside the images"
    assert skipped == {"no label beside it": 1}


def test_json_without_a_label_is_none(read):
    deep = b"[" * 100_000
    files = images("a/0.png", "b/1.png") | {"a/0.json": b'{"caption": "x"}', "b/1.json": deep}
    found, how, skipped = read(files)
    assert (list(found.values()), how) == (["a", "b"], "class folders")
    assert skipped == {"not .png, .jpg, .jpeg or .webp": 2}


@pytest.mark.parametrize("odd", [b"", b"-1", b"nan", b"x", b"\xff", b"1" * (2**20 + 1)])
def test_an_odd_label_beside_an_image_is_named(read, odd):
    files = images(*(f"{i}.png" for i in range(6)))
    files |= {f"{i}.cls": str(i).encode() for i in range(6)} | {"4.cls": odd}
    with pytest.raises(BadInputError, match=r"4\.cls"):
        read(files)


def test_prefixes_of_names_are_hinted_at_and_taken_on_demand(read):
    files = images("cat_0.png", "cat_1.png", "dog_0_1.png", "dog_1.png")
    found, how, _ = read(files)
    assert set(found.values()) == {"all"}
    assert how == "no folders: one class; names begin with cat_, dog_: --labels prefix"
    found, how, skipped = read(files | images("in/dog_7.png", "bird.png"), "prefix")
    assert list(found.values()) == ["cat", "cat", "dog", "dog", "dog"]
    assert skipped == {"no _ in the name": 1}


@pytest.mark.parametrize(
    "names", [["a_0.png", "b.png"], ["a_0.png", "a_1.png"], ["a_0.png", "b_0.png", "c_0.png"]]
)
def test_names_that_are_no_classes_are_not_hinted_at(read, names):
    assert read(images(*names))[1] == "no folders: one class"


@pytest.mark.parametrize("half", ['"\\ud800"', '"\\udcff"'])
def test_names_that_no_text_holds_are_escaped(read, half):
    """JSON may say half of a letter; a store holds UTF-8."""
    side = {f"{i}.json": f'{{"label": {half}}}'.encode() for i in range(2)}
    found, *_ = read(images("0.png", "1.png") | side)
    table = f'{{"labels": [["0.png", 0], ["1.png", 0]], "classes": [{half}]}}'.encode()
    named, *_ = read(images("0.png", "1.png") | {"dataset.json": table})
    assert len(set(found.values()) | set(named.values())) == 1
    assert found["0.png"].encode().startswith(b"\\")


@pytest.mark.parametrize(
    "names", [["0", "007", "7", "9", "10", "010"], ["9" * 4999, "1" + "0" * 5000]]
)
def test_names_that_are_numbers_are_sorted_as_such(read, names, tmp_path):
    table = {f"{i}.png": name for i, name in enumerate(names)}
    files = images(*table) | {"dataset.json": json.dumps({"labels": table}).encode()}
    assert read(files)[0] == table
    source = open_source(write_zip(tmp_path / "x.zip", files), Skips(), tmp_path / "spool")
    order = find_labels(source, None, Skips()).classes
    assert list(order) == sorted(names, key=lambda name: (name.lstrip("0").rjust(6000), name))
