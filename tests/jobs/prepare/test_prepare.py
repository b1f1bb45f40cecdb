"""Mirrors cdm_cli/jobs/prepare/{prepare,cost,decode,plan,without}.py.

What is found, what is left out, how runs continue.
"""

import json
import multiprocessing as mp
import os
import signal
import time
import zipfile
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from PIL import Image

from cdm_cli.data import disk
from cdm_cli.data.images import decode, to_array
from cdm_cli.data.store import open_store
from cdm_cli.errors import (
    BadInputError,
    DiskError,
    MismatchError,
    MissingError,
    UsageError,
    WouldOverwriteError,
)
from cdm_cli.jobs.prepare import decode as prepare_decode
from cdm_cli.jobs.prepare import prepare
from cdm_cli.jobs.prepare.prepare import run
from cdm_cli.jobs.runtime.foretold import TIMED
from cdm_cli.names import MOST_RESOLUTION
from cdm_cli.options.files import PrepareOptions
from tests.asking import as_typed
from tests.drawings import COLOURS, class_images, encoded, pixels, resize, write_folder, write_zip
from tests.tiny import Told


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(src, **changes):
    options = as_typed(
        PrepareOptions, **({"src": src, "resolutions": (4, 8), "workers": 1} | changes)
    )
    return run(options, Told())


def contents(path="data.h5", name="train"):
    """Everything of one part: {member: array}, read in order and checked."""
    with open_store(path) as store:
        store.require_finished()
        part = store.parts[name]
        blocks = [part.read_checked(b) for b in range(part.num_blocks)]
        return {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}


def test_a_dry_run_tells_what_becomes_of_the_images_and_leaves_nothing(workspace):
    src = write_zip(workspace / "images.zip", class_images(per_class=30))
    options = as_typed(PrepareOptions, src=src, resolutions=(4, 8), workers=2)
    found = prepare.plan(options, Told())
    assert [path.name for path in workspace.iterdir()] == ["images.zip"]
    assert (found["train"], found["classes"], found["resolutions"]) == (90, 3, [4, 8])
    assert (found["images_left"], found["estimated_by"]) == (90, TIMED)
    run(options, Told())
    assert found["disk_bytes"] == (workspace / "data.h5").stat().st_size
    assert prepare.plan(options, Told())["images_left"] == 0
    with pytest.raises(WouldOverwriteError, match="--resolution was 4,8, is 4"):
        prepare.plan(as_typed(PrepareOptions, src=src, resolutions=(4,)), Told())


def test_every_image_at_every_resolution_from_one_decode(workspace):
    files = class_images(per_class=30)
    result = made(write_folder(workspace / "images", files))
    assert (result.train, result.val, result.classes, result.skipped) == (90, 0, 3, [])
    found = contents()
    assert found["ids"].tolist() == list(range(90))
    assert found["labels"].tolist() == [0] * 30 + [1] * 30 + [2] * 30
    for row, name in enumerate(sorted(files)):
        for res in (4, 8):
            expected = resize(decode(files[name]), res)
            np.testing.assert_array_equal(found[f"images/{res}"][row], expected)
    with open_store("data.h5") as store:
        assert store.classes == sorted(COLOURS)
        assert store.provenance["command"] == (
            f"cdm prepare {workspace}/images --out data.h5 --resolution 4 --resolution 8"
            " --workers 1"
        )


def test_the_four_kinds_of_source_give_the_same_images(workspace):
    files = class_images(per_class=2)
    made(write_folder(workspace / "images", files), out="a.h5")
    made(write_zip(workspace / "images.zip", files), out="b.h5")
    arrays = np.stack([to_array(decode(files[name])) for name in sorted(files)])
    np.savez(workspace / "images.npz", arrays, np.repeat(np.arange(3), 2))
    result = made(workspace / "images.npz", out="c.h5")
    assert result.labels == "arr_1"
    for other in ("b.h5", "c.h5"):
        for name, array in contents("a.h5").items():
            np.testing.assert_array_equal(array, contents(other)[name])


def test_datasets_of_any_hdf5_are_train_and_val(workspace):
    """Both in one file; without names of their own, val is of the datasets of train."""
    x = np.stack([pixels(number=number, height=8, width=8) for number in range(7)])
    y = np.array([0, 1, 2, 0, 1, 2, 2])
    with h5py.File("all.h5", "w") as file:
        file["x"], file["y"], file["x_test"], file["y_test"] = x, y, x[:3], y[:3]
    asked = {"images": "x", "labels": "y"}
    tested = {"val": "all.h5", "val_images": "x_test", "val_labels": "y_test"}
    assert made("all.h5", **asked, **tested).val == 3
    np.testing.assert_array_equal(contents()["images/8"], x)
    np.testing.assert_array_equal(contents(name="val")["images/8"], x[:3])
    assert contents(name="val")["labels"].tolist() == y[:3].tolist()
    assert made("all.h5", out="b.h5", val="all.h5", **asked).val == 7
    with pytest.raises(UsageError, match="is HDF5, and has x uint8"):
        made("all.h5", out="c.h5")
    with pytest.raises(UsageError, match=r"b\.h5 is a store of cdm: there is nothing to prepare"):
        made("b.h5", out="c.h5")
    with pytest.raises(UsageError, match="--val-images without --val"):
        made("all.h5", out="c.h5", val_images="x", **asked)


def test_val_takes_the_classes_of_train(workspace):
    train = write_zip(workspace / "train.zip", class_images(per_class=2))
    birds = {"bird": COLOURS["bird"]}
    val = write_zip(workspace / "val.zip", class_images(per_class=3, classes=birds))
    assert made(train, val=val).val == 3
    assert contents(name="val")["labels"].tolist() == [1, 1, 1]
    strange = write_zip(workspace / "x.zip", class_images(classes={"dog": (1, 2, 3)}))
    with pytest.raises(MismatchError, match="class 'dog'"):
        made(train, val=strange, out="other.h5")
    assert not (workspace / "other.h5").exists()


def test_labels_from_a_table(workspace):
    flat = {name.replace("/", "-"): data for name, data in class_images(per_class=2).items()}
    rows = [f"{name},{name.partition('-')[0]}" for name in flat]
    (workspace / "labels.csv").write_text("\n".join(["file,class", *rows]))
    made(write_zip(workspace / "flat.zip", flat), labels=workspace / "labels.csv")
    assert contents()["labels"].tolist() == [0, 0, 1, 1, 2, 2]
    with open_store("data.h5") as store:
        assert store.classes == sorted(COLOURS)


@pytest.mark.parametrize(
    ("images", "channels"),
    [
        ([Image.new("L", (8, 8), 7)], 1),
        ([Image.new("RGB", (8, 8), (7, 7, 7))], 1),
        ([Image.new("L", (8, 8), 7), Image.new("RGB", (8, 8), (7, 8, 7))], 3),
        ([Image.new("LA", (8, 8), (7, 100))], 2),
        ([Image.new("RGBA", (8, 8), (7, 8, 9, 100))], 4),
        ([Image.new("RGBA", (8, 8), (7, 8, 9, 100)), Image.new("RGB", (8, 8), (9, 8, 7))], 3),
    ],
)
def test_channels_are_found(workspace, images, channels):
    files = {f"a/{i}.png": encoded(image) for i, image in enumerate(images)}
    result = made(write_folder(workspace / "images", files), resolutions=())
    assert result.resolutions == (8,)
    assert result.channels.startswith(f"{channels} ")
    assert contents()["images/8"].shape == (len(images), 8, 8, channels)


def test_colour_that_the_first_look_missed_is_an_error(workspace, monkeypatch):
    gray = {f"a/{i}.png": encoded(Image.new("L", (8, 8), i)) for i in range(9)}
    gray["a/3.png"] = encoded(pixels(height=8, width=8))
    look = prepare.list_sources.__globals__["look"]
    monkeypatch.setitem(prepare.list_sources.__globals__, "look", lambda source: look(source, 2))
    source = write_folder(workspace / "images", gray)
    with pytest.raises(MismatchError, match=r"a/3\.png has colour"):
        made(source)
    made(source, channels=3, out="colour.h5")


def damaged(files, *names):
    """Cut the files of these names in the middle."""
    return files | {name: files[name][: len(files[name]) // 2] for name in names}


def test_images_that_cannot_be_used_are_left_out_and_told(workspace):
    files = class_images(per_class=100)
    bad = damaged(files, "apple/003.png", "cat/099.png")
    source = write_folder(workspace / "images", bad | {"bird/notes.txt": b"hello"})
    result = made(source)
    assert result.train == 298
    assert sum(row["images"] for row in result.skipped) == 3
    assert {name for row in result.skipped for name in row["first"]} == {
        "apple/003.png", "cat/099.png", "bird/notes.txt",
    }  # fmt: skip
    found = contents()
    good = [row for row in range(300) if row not in (3, 299)]
    assert found["ids"].tolist() == good
    names = sorted(files)
    for place, row in enumerate(good):
        np.testing.assert_array_equal(
            found["images/8"][place], resize(decode(files[names[row]]), 8)
        )
    assert sorted(path.name for path in workspace.iterdir()) == ["data.h5", "images"]
    assert made(source) == result  # and again, from the same files


def test_strict_stops_at_the_first_bad_image(workspace):
    source = write_folder(workspace / "images", damaged(class_images(per_class=2), "bird/001.png"))
    with pytest.raises(BadInputError, match=r"bird/001\.png cannot be used"):
        made(source, strict=True)
    assert [path.name for path in workspace.iterdir()] == ["images"]
    assert len(made(source).skipped) == 1  # as the error advises


def test_nothing_usable_is_an_error(workspace):
    files = class_images(per_class=1)
    with pytest.raises(BadInputError, match="not one of 3 images"):
        made(write_folder(workspace / "images", damaged(files, *files)))
    assert made(write_folder(workspace / "images", files)).train == 3  # once they are mended
    (workspace / "data.h5").unlink()
    (workspace / "empty").mkdir()
    with pytest.raises(BadInputError, match="holds no image"):
        made(workspace / "empty")
    with pytest.raises(MissingError):
        made(workspace / "nowhere")


def test_conversions_are_counted(workspace):
    files = {
        "a/0.png": encoded(Image.fromarray(np.full((8, 8), 40_000, np.uint16))),
        "a/1.jpg": encoded(Image.new("CMYK", (8, 8), (0, 99, 99, 0)), "JPEG"),
        "a/2.png": encoded(pixels(height=6, width=6)),
    }
    result = made(write_folder(workspace / "images", files), channels=3)
    assert result.conversions == {
        "16-bit": 1, "CMYK": 1, "enlarged (smaller than the resolution)": 1,
    }  # fmt: skip


def test_drafts_are_asked_for_counted_and_part_of_the_identity(workspace):
    jpegs = class_images(per_class=3, height=150, width=170, kind="JPEG")
    source = write_folder(workspace / "images", damaged(jpegs, "bird/001.jpeg"))
    made(source, out="full.h5")
    result = made(source, draft=True)
    assert result.conversions == {"decoded at 1/2": 8}
    assert [row["first"] for row in result.skipped] == [["bird/001.jpeg"]]
    for name in ("images/4", "images/8"):
        difference = contents()[name].astype(int) - contents("full.h5")[name]
        assert 0 < np.abs(difference).max() <= 8
    with open_store("data.h5") as store:
        assert store.provenance["identity"]["draft"] == 8
        assert "--draft" in store.provenance["command"]
        assert "1/2, 1/4 or 1/8" in store.provenance["conventions"]["crop"]
    with open_store("full.h5") as store:
        assert "draft" not in store.provenance["identity"]
    with pytest.raises(WouldOverwriteError, match="draft"):
        made(source, out="full.h5", draft=True)
    with pytest.raises(UsageError, match="--draft with --crop adm"):
        made(source, out="adm.h5", draft=True, crop="adm")


def test_the_same_command_again_does_nothing_another_is_refused(workspace):
    source = write_zip(workspace / "a.zip", class_images(per_class=2))
    first = made(source)
    before = (workspace / "data.h5").read_bytes()
    assert made(source) == first
    for changes, said in (
        ({"resolutions": (8,)}, "--resolution was"),
        ({"crop": "adm"}, "crop was"),
        ({"src": write_zip(workspace / "b.zip", class_images(per_class=3))}, "SRC was"),
        ({"val": source}, "--val was absent"),
    ):
        with pytest.raises(WouldOverwriteError, match=said):
            made(**({"src": source} | changes))
    assert (workspace / "data.h5").read_bytes() == before


def test_an_interrupted_run_continues_with_the_blocks_that_are_missing(workspace, monkeypatch):
    files = damaged(class_images(per_class=100), "cat/000.png")
    source = write_folder(workspace / "images", files)
    made(source, out="whole.h5")
    real, done = prepare_decode.write_block, []

    def failing(part, b, images):
        if len(done) == 2:
            raise DiskError("the disk is full")
        done.append(b)
        return real(part, b, images)

    monkeypatch.setattr(prepare_decode, "write_block", failing)
    with pytest.raises(DiskError):
        made(source)
    assert not (workspace / "data.h5").exists()
    with pytest.raises(WouldOverwriteError, match="is of another command"):
        made(source, resolutions=(4,))
    again = []
    monkeypatch.setattr(
        prepare_decode,
        "write_block",
        lambda part, b, images: again.append(b) or real(part, b, images),
    )
    made(source)
    assert again == [2, 3, 4]  # 300 images in blocks of 64
    whole, continued = contents("whole.h5"), contents()
    for name, array in whole.items():
        np.testing.assert_array_equal(array, continued[name])


def test_a_kill_between_any_two_disk_calls_loses_one_block_at_most(workspace):
    """Stop at every call that changes the disk, run again: the bytes are those of one run."""

    class Killed(BaseException):
        pass

    files = damaged(class_images(per_class=50), "bird/001.png")
    source = write_folder(workspace / "images", files)
    calls = []
    with disk.announce_to(lambda io: calls.append(io.kind)):
        made(source, out="whole.h5")
    whole = contents("whole.h5")
    for last in range(1, len(calls), 7):
        count = 0

        def kill(io, last=last):
            nonlocal count
            count += 1
            if count == last:
                raise Killed

        out = f"killed-{last}.h5"
        with pytest.raises(Killed), disk.announce_to(kill):
            made(source, out=out)
        made(source, out=out)
        for name, array in whole.items():
            np.testing.assert_array_equal(array, contents(out)[name])


def test_several_processes_write_the_same_store(workspace):
    files = damaged(class_images(per_class=100), "apple/001.png")
    source = write_zip(workspace / "a.zip", files, zipfile.ZIP_DEFLATED)
    made(source, out="one.h5")
    made(source, out="two.h5", workers=2)
    for name, array in contents("one.h5").items():
        np.testing.assert_array_equal(array, contents("two.h5")[name])


def test_resolution_must_be_said_where_sizes_differ(workspace):
    files = {"a/0.png": encoded(pixels()), "a/1.png": encoded(pixels(height=9))}
    source = write_folder(workspace / "images", files)
    with pytest.raises(UsageError, match="--resolution is missing"):
        made(source, resolutions=())
    with pytest.raises(UsageError, match="--val-labels without --val"):
        made(source, val_labels=source)


def test_images_that_are_larger_than_a_store_takes_ask_for_a_resolution(workspace):
    large = encoded(Image.new("1", (MOST_RESOLUTION + 1,) * 2))
    source = write_folder(workspace / "images", {"a/0.png": large})
    with pytest.raises(UsageError, match=f"{MOST_RESOLUTION + 1} pixels .* {MOST_RESOLUTION}"):
        made(source, resolutions=())


def test_dataset_json_at_the_root_is_used(workspace):
    files = {f"{i}.png": encoded(pixels(number=i)) for i in range(3)}
    table = {"labels": [[name, 2 - i] for i, name in enumerate(files)]}
    made(write_zip(workspace / "a.zip", files | {"dataset.json": json.dumps(table).encode()}))
    assert contents()["labels"].tolist() == [2, 1, 0]


def test_links_are_followed_on_demand_and_told_of_otherwise(workspace):
    far = write_folder(workspace / "far", class_images(per_class=2))
    near = workspace / "near"
    near.mkdir()
    for name in ("apple", "cat"):
        (near / name).symlink_to(far / name)
    with pytest.raises(BadInputError, match="2 symbolic link, not followed") as caught:
        made(near)
    assert caught.value.next == "--follow-links"
    (near / "bird").mkdir()
    (near / "bird/0.png").write_bytes((far / "bird/000.png").read_bytes())
    result = made(near, out="one.h5")
    assert (result.train, result.classes) == (1, 1)
    assert [row["reason"] for row in result.skipped] == [
        "symbolic link, not followed without --follow-links"
    ]
    result = made(near, follow_links=True)
    assert (result.train, result.classes, result.skipped) == (5, 3, [])
    made(far, out="far.h5")
    np.testing.assert_array_equal(
        contents()["images/8"], contents("far.h5")["images/8"][[0, 1, 2, 4, 5]]
    )


def test_a_rule_for_classes_holds_for_val_too(workspace):
    files = {name.replace("/", "_"): data for name, data in class_images(per_class=4).items()}
    train = write_folder(workspace / "train", files)
    val = write_zip(workspace / "val.zip", dict(list(files.items())[:5]))
    result = made(train, val=val, labels="prefix")
    assert (result.classes, result.labels) == (3, "names of files, up to the first _")
    assert contents(name="val")["labels"].tolist() == [0, 0, 0, 0, 1]


def test_classes_without_images_are_named(workspace):
    files = class_images(per_class=2)
    bad = write_folder(workspace / "bad", damaged(files, "bird/000.png", "bird/001.png"))
    told = Told()
    options = {"src": bad, "resolutions": (8,), "workers": 1}
    for out in ("a.h5", "a.h5"):  # made, and there already
        result = run(as_typed(PrepareOptions, **options, out=out), told)
        assert (result.classes, result.without_images) == (3, [{"id": 1, "class": "bird"}])
        assert told.lines[-1] == "train: 1 of 3 classes without an image: 'bird' (id 1)"
    (workspace / "one.csv").write_text(
        "file,label\n" + "\n".join(f"{name},{2 + 2 * i}" for i, name in enumerate(sorted(files)))
    )
    whole = write_folder(workspace / "whole", files)
    result = made(whole, labels="one.csv", out="b.h5")
    assert [row["id"] for row in result.without_images] == [0, 1, 3, 5, 7, 9, 11]
    assert made(whole, out="c.h5").without_images == []


def test_a_worker_that_hears_nothing_of_a_broken_pool_is_not_waited_for():
    """As one that is being started while another dies."""
    start = mp.get_context("spawn").Process
    deaf, dead = start(target=time.sleep, args=(60,)), start(target=os._exit, args=(3,))
    deaf.start()
    dead.start()
    dead.join()
    pool = SimpleNamespace(shutdown=lambda **_: deaf.join())
    assert prepare_decode._end(pool, [deaf, dead]) == [3]
    assert deaf.exitcode == -signal.SIGKILL
