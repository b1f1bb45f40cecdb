"""Mirrors cdm_cli/jobs/exchange/import_{any,plan,store}.py: images of others become stores."""

import json
import shutil
import signal
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from cdm_cli.data import disk
from cdm_cli.data.store import open_store
from cdm_cli.errors import (
    BadInputError,
    MismatchError,
    MissingError,
    StoppedError,
    UsageError,
    WouldOverwriteError,
)
from cdm_cli.jobs.exchange import export
from cdm_cli.jobs.exchange.import_any import run
from cdm_cli.jobs.sampling.fitting import find_fitting_stage
from cdm_cli.options.files import ExportOptions, ImportOptions
from tests.asking import as_typed
from tests.drawings import COLOURS, class_images, encoded, pixels, write_folder
from tests.tiny import (
    CLASSES,
    Told,
    arrays_of,
    contents,
    sr_config,
    write_stage,
    write_store,
)

HOSTILE = ("..", "a/b\n", "x" * 3000, "")


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def imported(src, out="in.h5", told=None, **changes):
    return run(as_typed(ImportOptions, src=src, out=out, **changes), told or Told())


def stored(classes=CLASSES, channels=3, num=150, ids=None):
    arrays = arrays_of(num, [8])
    rng = np.random.default_rng(0)
    arrays["images/8"] = rng.integers(0, 256, (num, 8, 8, channels)).astype(np.uint8)
    arrays["labels"] = rng.integers(0, len(classes), num)
    arrays["ids"] = np.arange(num) * 3 if ids is None else ids
    return write_store("samples.h5", "samples", {"": arrays}, classes=classes)


def exported(out, **changes):
    export.run(as_typed(ExportOptions, **({"store": "samples.h5", "out": out} | changes)), Told())


def opened(path="in.h5"):
    with open_store(path) as store:
        part = store.parts[""]
        res = part.resolutions[0]
        return (
            np.array(part.images(res)), part.labels.tolist(), part.ids.tolist(), store.classes,
        )  # fmt: skip


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("classes", [CLASSES, HOSTILE])
def test_export_and_import_of_a_folder_is_the_same_store(classes, channels):
    stored(classes, channels)
    exported("out")
    found = imported("out")
    assert (found.samples, found.made, found.channels) == (150, 150, channels)
    assert (found.ids, found.skipped) == ("file names", {})
    assert contents("in.h5") == contents("samples.h5")
    assert opened()[3] == list(classes)


def test_ids_in_any_order_come_back():
    stored(ids=np.arange(150)[::-1] // 2)
    exported("out")
    imported("out")
    assert contents("in.h5") == contents("samples.h5")


def test_a_zip_of_an_export_is_the_same_store():
    stored()
    exported("out")
    with zipfile.ZipFile("out.zip", "w") as archive:
        for path in sorted(Path("out").rglob("*")):
            archive.write(path, path.relative_to("out"))
    imported("out.zip")
    assert contents("in.h5") == contents("samples.h5")
    assert opened()[3] == list(CLASSES)


def test_an_npz_keeps_images_labels_and_order():
    stored()
    exported("out.npz")
    Path("names.txt").write_text("\n".join(CLASSES))
    found = imported("out.npz", classes="names.txt")
    assert (found.ids, found.labels) == ("rows of the array", "arr_1")
    images, labels, ids, classes = opened()
    before = opened("samples.h5")
    np.testing.assert_array_equal(images, before[0])
    assert (labels, ids, classes) == (before[1], list(range(150)), before[3])
    with np.load("out.npz") as loaded:
        np.savez_compressed("packed.npz", loaded["arr_0"], loaded["arr_1"])
    imported("packed.npz", "b.h5")
    np.testing.assert_array_equal(opened("b.h5")[0], images)
    assert opened("b.h5")[3] == ["0", "1", "2"]
    assert not list(Path().glob("*.unpacked"))


def test_datasets_of_any_hdf5_keep_images_labels_and_order():
    stored()
    exported("out.npz")
    imported("out.npz", "a.h5", classes="samples.h5")
    with np.load("out.npz") as loaded, h5py.File("their.h5", "w") as file:
        file.create_dataset("x", data=loaded["arr_0"].transpose(0, 3, 1, 2), compression="gzip")
        file["train/y"] = loaded["arr_1"][:, None].astype(np.uint8)
    asked = {"images": "x", "labels": "train/y", "classes": "samples.h5"}
    found = imported("their.h5", "b.h5", **asked)
    assert (found.labels, found.ids) == ("train/y", "rows of the array")
    assert contents("a.h5") == contents("b.h5")
    assert imported("their.h5", "b.h5", **asked).made == 0
    assert not list(Path().glob("*unpacked*"))
    with pytest.raises(UsageError, match=r"their.h5 is HDF5, and has x uint8 .* Next: --images x"):
        imported("their.h5", "c.h5")
    with pytest.raises(UsageError, match=r"--images x: out\.npz is no HDF5 file"):
        imported("out.npz", "c.h5", images="x")
    with pytest.raises(UsageError, match="--images: does not go with a checkpoint"):
        imported("a.pt", "runs/a", images="x")
    with pytest.raises(UsageError, match="holds images, which become a store"):
        imported("their.h5", "runs/a", images="x")
    assert not Path("c.h5").exists()


def test_any_folder_is_interleaved_by_class():
    write_folder(Path("pics"), class_images(3))
    found = imported("pics")
    assert (found.resolution, found.classes, found.ids) == (16, 3, "counted")
    images, labels, ids, classes = opened()
    assert (labels, ids) == ([0, 1, 2] * 3, list(range(9)))
    assert classes == ["apple", "bird", "cat"]
    np.testing.assert_array_equal(images[5], pixels((60, 160, 70), 1))
    with open_store("in.h5") as store:
        assert store.kind == "samples"
        identity, (parent,) = store.provenance["identity"], store.provenance["parents"]
        assert identity["command"] == "import"
        assert (parent["name"], parent["digest"]) == ("pics", identity["source"])
        assert store.provenance["command"] == "cdm import pics --out in.h5"


def test_a_label_table_is_taken():
    write_folder(Path("pics"), {f"{n}.png": encoded(pixels(number=n)) for n in (7, 20, 3)})
    Path("labels.csv").write_text("7.png,0\n20.png,1\n3.png,1\n")
    imported("pics", labels="labels.csv")
    assert opened()[1:3] == ([1, 0, 1], [3, 7, 20])


@pytest.mark.parametrize(
    ("modes", "channels"),
    [(("L", "RGB"), 3), (("L", "LA"), 2), (("L", "RGBA"), 4), (("RGB", "RGBA"), 4), (("L",), 1)],
)
def test_channels_are_as_many_as_lose_nothing(modes, channels):
    rng = np.random.default_rng(0)
    made = {}
    for number, mode in enumerate(modes):
        shape = (8, 8, len(mode)) if len(mode) > 1 else (8, 8)
        made[f"{number}.png"] = Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8))
        assert made[f"{number}.png"].mode == mode
    write_folder(Path("pics"), {name: encoded(image) for name, image in made.items()})
    imported("pics")
    images = opened()[0]
    assert images.shape[-1] == channels
    for image, one in zip(made.values(), images, strict=True):
        back = Image.fromarray(one[..., 0] if channels == 1 else one).convert(image.mode)
        np.testing.assert_array_equal(np.asarray(back), np.asarray(image))


def test_sixteen_bits_are_told():
    wide = Image.fromarray(np.full((8, 8), 0x1234, np.uint16))
    write_folder(Path("pics"), {"1.png": encoded(wide)})
    told = Told()
    assert imported("pics", told=told).conversions == {"16-bit": 1}
    assert "1 image is 16-bit" in told.lines[0]
    assert (opened()[0] == 0x12).all()


@pytest.mark.parametrize(
    ("files", "error", "says"),
    [
        ({"0.png": (8, 8), "1.png": (8, 16)}, MismatchError, "1.png is 16×8, 0.png is 8×8"),
        ({"0.png": (8, 16)}, MismatchError, "0.png is 16×8; samples are square"),
        ({"0.png": (8, 8), "1.png": None}, BadInputError, "image 1.png cannot be used"),
        ({"a.txt": None}, BadInputError, "holds no image"),
    ],
)
def test_what_cannot_be_a_store_is_refused(files, error, says):
    write_folder(
        Path("pics"),
        {
            name: encoded(pixels(height=size[0], width=size[1])) if size else b"no image"
            for name, size in files.items()
        },
    )
    with pytest.raises(error, match=says) as caught:
        imported("pics")
    if error is MismatchError:
        assert caught.value.next.startswith("cdm prepare pics")
    assert not Path("in.h5").exists()


def test_once_a_bad_image_is_mended_the_same_command_imports_it():
    good = encoded(pixels(height=8, width=8))
    write_folder(Path("pics"), {"0.png": good, "1.png": good[:-30]})
    with pytest.raises(BadInputError, match=r"image 1\.png cannot be used.*no store was made"):
        imported("pics")
    assert not Path("in.h5").exists()
    write_folder(Path("pics"), {"1.png": good})
    assert imported("pics").samples == 2


class Killed(BaseException):
    """What a killed process does next: nothing."""


def test_killed_at_any_operation_the_same_command_ends_in_the_same_bytes():
    stored(num=66)
    exported("out.npz")
    ios = []
    with disk.announce_to(ios.append):
        imported("out.npz", "ref.h5")
    wanted = contents("ref.h5")
    for last in range(len(ios)):
        left = iter(range(last))

        def kill(io, left=left):
            if next(left, None) is None:
                raise Killed

        with pytest.raises(Killed), disk.announce_to(kill):
            imported("out.npz", "k.h5")
        pending = [0, 1]
        if Path("k.h5").exists():
            with open_store("k.h5") as store:
                pending = store.parts[""].list_missing()
        assert imported("out.npz", "k.h5").made == sum((64, 2)[b] for b in pending)
        assert contents("k.h5") == wanted
        Path("k.h5").unlink()
    assert len(ios) > 15


def test_a_stopped_import_continues():
    def interfere(done):
        if done > 150:  # headers, then one block
            signal.raise_signal(signal.SIGTERM)

    stored()
    exported("out")
    with pytest.raises(StoppedError, match="1 of 3 blocks are complete"):
        imported("out", told=Told(interfere))
    assert imported("out").made == 150 - 64
    assert contents("in.h5") == contents("samples.h5")


def test_another_source_under_the_same_name_is_refused():
    stored()
    exported("out")
    exported("some", num=60)
    imported("out")
    with pytest.raises(WouldOverwriteError, match=r"in\.h5 is of another command"):
        imported("some")
    assert imported("out").made == 0


def test_class_names_must_fit():
    stored()
    exported("out.npz")
    exported("out")
    Path("names.txt").write_text("a\nb\n")
    with pytest.raises(MismatchError, match="label 2, not among the 2 classes of --classes names"):
        imported("out.npz", classes="names.txt")
    with pytest.raises(MismatchError, match=r"class 'disk', 'ring', .*, not among the 2 classes"):
        imported("out", classes="names.txt")
    imported("out.npz", classes="samples.h5")
    assert opened()[3] == list(CLASSES)


def own(*names, per_class=2):
    """Images of one's own, in folders of these names."""
    classes = {name: COLOURS["cat"] for name in names}
    files = class_images(per_class, 8, 8, classes=classes)
    return str(write_folder(Path("own"), files))


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ([str(k) for k in range(13)], ["2", "3", "10"]),
        (["n01", "n02", "tench, Tinca tinca", "n04"], ["n04", "n02"]),
        (["10", "9", "8", "zebra"], ["8", "10"]),
    ],
)
def test_images_of_some_classes_take_all_of_a_store_by_name(names, chosen):
    stored(names)
    found = imported(own(*chosen), classes="samples.h5")
    _, labels, _, classes = opened()
    assert (found.classes, classes) == (len(names), names)
    assert sorted(names[k] for k in labels) == sorted(2 * chosen)


def test_a_class_that_the_names_lack_is_an_error_with_the_nearest():
    stored(["zebra", "horse", "horse"])
    for name, near in (("zebras", r"\(near 'zebra'\)"), ("horse", "'horse', 'horse'")):
        with pytest.raises(MismatchError, match=f"own has class '{name}' .*{near}"):
            imported(own(name), classes="samples.h5")
        shutil.rmtree("own")
    assert not Path("in.h5").exists()


def test_numbers_of_a_table_are_names_where_all_names_are_numbers():
    stored(["2", "3", "10"])
    own("x", per_class=3)
    Path("own.csv").write_text("x/000.png,10\nx/001.png,2\nx/002.png,3\n")
    imported("own", classes="samples.h5", labels="own.csv")
    assert sorted(opened()[1]) == [0, 1, 2]
    stored_labels = dict(zip(opened()[2], opened()[1], strict=True))
    assert stored_labels == {0: 2, 1: 0, 2: 1}


def test_a_stage_names_classes_and_upsample_says_how():
    stage = write_stage(Path("runs/sr"), sr_config(8, 16), classes=("ant", "bee", "cat"))
    source = own("cat", "ant")
    imported(source)
    for model, error in ((None, MissingError), ("sr", MismatchError)):
        with open_store("in.h5") as store, pytest.raises(error) as caught:
            find_fitting_stage(model, Path("runs"), store, store.parts[""])
        assert f"--classes {stage}" in caught.value.next
    Path("in.h5").unlink()
    imported(source, classes=stage)
    with open_store("in.h5") as store:
        assert find_fitting_stage(None, Path("runs"), store, store.parts[""]).directory == stage
    assert set(opened()[1]) == {0, 2}


@pytest.mark.parametrize(
    ("classes", "says"), [([1], "no list of names"), (["a", "b"], "class 2 has no name")]
)
def test_a_broken_list_of_names_is_refused(classes, says):
    stored()
    exported("out")
    table = json.loads(Path("out/dataset.json").read_text()) | {"classes": classes}
    Path("out/dataset.json").write_text(json.dumps(table))
    with pytest.raises(BadInputError, match=says):
        imported("out")
