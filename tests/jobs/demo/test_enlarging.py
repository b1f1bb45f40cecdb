"""Mirrors cdm_cli/jobs/demo/enlarging.py and picture.py."""

from pathlib import Path

import numpy as np
import pytest

from cdm_cli.data.store import open_store
from cdm_cli.errors import WouldOverwriteError
from cdm_cli.jobs.demo.enlarging import enlarge_images, write_enlarged
from cdm_cli.jobs.demo.picture import NEW, REAL, draw_picture
from cdm_cli.jobs.pictures.tiles import choose_scale
from tests.tiny import CLASSES, arrays_of, write_store

MADE = {"identity": {"seed": 7}}


def test_flat_images_stay_and_edges_are_bicubic():
    flat = np.full((1, 4, 4, 3), 77, np.uint8)
    assert (enlarge_images(flat, 16) == 77).all()
    edge = np.zeros((1, 4, 4, 3), np.uint8)
    edge[:, :, 2:] = 200
    row = enlarge_images(edge, 16)[0, 8, :, 0].astype(int)
    assert row.max() > 200, "bicubic overshoots beside an edge"
    assert 0 < row[7] < 100 < row[8] < 200


def test_the_larger_samples_are_paired_with_the_smaller(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays = arrays_of(9, (4,)) | {"ids": np.arange(9) + 3}
    low = write_store(tmp_path / "low.h5", "samples", {"": arrays}, provenance=MADE, block_size=4)
    for _ in range(2):  # the second finds it done
        write_enlarged(low, Path("large.h5"), 16)  # as cdm demo . does
    with open_store(tmp_path / "large.h5") as store:
        store.require_finished()
        part = store.parts[""]
        assert store.provenance["identity"]["seed"] == 7
        assert part.ids.tolist() == arrays["ids"].tolist()
        assert part.labels.tolist() == arrays["labels"].tolist()
        assert (part.images(16) == enlarge_images(arrays["images/4"], 16)).all()
    other = write_store(tmp_path / "other.h5", "samples", {"": arrays_of(9, (4,), seed=1)})
    with pytest.raises(WouldOverwriteError, match="Next: cdm demo "):
        write_enlarged(other, tmp_path / "large.h5", 16)


def test_the_picture_has_a_row_for_each_class_with_input_output_and_real(tmp_path):
    val, new = arrays_of(9, (8, 32)), arrays_of(12, (8, 32), seed=3)
    write_store(tmp_path / "data.h5", "prepared", {"train": val, "val": val})
    kept = {name: val[name][3:] for name in ("images/32", "labels", "ids")}
    write_store(tmp_path / "again.h5", "samples", {"": kept})
    for name, side in (("low.h5", 8), ("high.h5", 32)):
        write_store(tmp_path / name, "samples", {"": {
            key: new[key] for key in (f"images/{side}", "labels", "ids")
        }})  # fmt: skip
    paths = [tmp_path / name for name in ("data.h5", "again.h5", "low.h5", "high.h5")]
    drawn = np.asarray(draw_picture(*paths))
    scale = choose_scale(32)
    assert drawn.shape[0] > len(CLASSES) * 32 * scale
    assert drawn.shape[1] > (len(REAL) + NEW * 4) * 32 * scale
    for image in (val["images/32"][3], kept["images/32"][0], new["images/32"][0]):
        tile = image.repeat(scale, 0).repeat(scale, 1)
        assert holds(drawn, tile), "an image stands in it as it is"
    assert not holds(drawn, new["images/32"][9].repeat(scale, 0).repeat(scale, 1))


def holds(picture, tile):
    """Say whether a picture shows a tile anywhere."""
    height, width = tile.shape[:2]
    corners = np.argwhere((picture[: -height + 1, : -width + 1] == tile[0, 0]).all(-1))
    return any((picture[y : y + height, x : x + width] == tile).all() for y, x in corners)
