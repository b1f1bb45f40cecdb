"""Mirrors cdm_cli/jobs/pictures/grid.py: which images stand where, and in which colours."""

import numpy as np
import pytest
from PIL import Image

from cdm_cli.data.store import PartSpec, StoreSpec, create
from cdm_cli.errors import BadInputError, MissingError, UsageError, WouldOverwriteError
from cdm_cli.jobs.pictures.grid import draw_grid, run
from cdm_cli.options.files import GridOptions
from tests.asking import as_typed

CLASSES = ["cat", "dog", "emu"]
REPORT = None  # a grid has nothing to tell while it works


def block(labels, resolutions, start):
    """Image i is grey, of value start + i."""
    num = len(labels)
    values = np.arange(start, start + num, dtype=np.uint8).reshape(-1, 1, 1, 1)
    arrays = {f"images/{r}": np.tile(values, (1, r, r, c)) for r, c in resolutions.items()}
    labels = np.asarray(labels, dtype=np.int64)
    return arrays | {"labels": labels, "ids": np.arange(start, start + num, dtype=np.int64)}


def write_store(path, *, num=12, blocks=3, resolutions=None, kind="samples", parts=("",)):
    """Samples i = 0..num-1 of class i % 3 (sorted by class if prepared), in blocks of 4."""
    resolutions = resolutions or {4: 3}
    spec = PartSpec(num=num, resolutions=resolutions)
    store = create(path, StoreSpec(kind, dict.fromkeys(parts, spec), CLASSES, {}, block_size=4))
    labels = np.arange(num) % 3 if kind == "samples" else np.arange(num) * 3 // num
    with store:
        for part in store.parts.values():
            for b in range(blocks):
                rows = part.block_range(b)
                part.write_block(b, block(labels[rows.start : rows.stop], resolutions, rows.start))
    return path


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "samples.h5")


def shown(path, side, left=0):
    """The grey values at the middles of the tiles, row by row."""
    with Image.open(path) as image:
        picture = np.asarray(image.convert("L")).astype(int)
    ys = range(side // 2, picture.shape[0], side + 2)
    return [
        [picture[y, x] for x in range(left + side // 2, picture.shape[1], side + 2)] for y in ys
    ]


def test_the_first_samples_in_order(store, tmp_path):
    result = run(
        as_typed(GridOptions, store=store, out=tmp_path / "g.png", columns=5, scale=1), REPORT
    )
    assert (result.rows, result.columns, result.resolution) == (3, 5, 4)
    assert shown(tmp_path / "g.png", 4) == [
        [0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 255, 255, 255],
    ]  # fmt: skip


def test_a_row_for_each_class(store, tmp_path):
    out = tmp_path / "g.png"
    result = run(as_typed(GridOptions, store=store, out=out, per_class=2, scale=2), REPORT)
    assert (result.rows, result.columns) == (3, 2)
    with Image.open(out) as picture:
        left = picture.width - 2 * 8 - 2
    assert left > 10, "the names of the classes need room"
    assert shown(out, 8, left) == [[0, 3], [1, 4], [2, 5]]


def test_prepared_data_are_spread_and_shown_from_val(tmp_path):
    path = write_store(tmp_path / "data.h5", kind="prepared", parts=("train", "val"))
    out = tmp_path / "g.png"
    run(as_typed(GridOptions, store=path, out=out, num=3, columns=3, scale=1), REPORT)
    assert shown(out, 4) == [[0, 6, 11]]
    with pytest.raises(UsageError, match="--split test"):
        run(as_typed(GridOptions, store=path, out=out, split="test"), REPORT)


def test_only_finished_blocks_are_shown(tmp_path):
    path = write_store(tmp_path / "part.h5", blocks=1)
    run(as_typed(GridOptions, store=path, out=tmp_path / "g.png", scale=1, columns=6), REPORT)
    assert shown(tmp_path / "g.png", 4) == [[0, 1, 2, 3]]
    empty = write_store(tmp_path / "empty.h5", blocks=0)
    with pytest.raises(MissingError, match="no finished image"):
        run(as_typed(GridOptions, store=empty, out=tmp_path / "h.png"), REPORT)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_channels_and_the_default_scale(tmp_path, channels, mode):
    path = write_store(tmp_path / "s.h5", resolutions={4: channels, 8: channels})
    result = run(as_typed(GridOptions, store=path, out=tmp_path / "g.png", num=1), REPORT)
    assert result.resolution == 8
    with Image.open(tmp_path / "g.png") as picture:
        assert (picture.mode, picture.size) == (mode, (64, 64))


def test_the_same_grid_again_is_done_already_and_another_is_not_written(store, tmp_path):
    out = tmp_path / "g.png"
    run(as_typed(GridOptions, store=store, out=out), REPORT)
    before = out.stat().st_mtime_ns
    run(as_typed(GridOptions, store=store, out=out), REPORT)
    assert out.stat().st_mtime_ns == before
    with pytest.raises(WouldOverwriteError):
        run(as_typed(GridOptions, store=store, out=out, num=2), REPORT)
    assert out.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"resolution": 5}, "--resolution 5"),
        ({"out": "grid.jpg"}, "PNG"),
        ({"per_class": 2, "num": 5}, "--per-class"),
        ({"per_class": 2, "columns": 5}, "--per-class"),
        ({"split": "val"}, "--split val"),
    ],
)
def test_usage(store, tmp_path, changes, part):
    values = {"store": store, "out": tmp_path / "g.png"} | changes
    with pytest.raises(UsageError, match=part):
        run(as_typed(GridOptions, **values), REPORT)
    assert not (tmp_path / "g.png").exists()


def test_a_picture_too_large_for_viewers_is_refused(tmp_path):
    path = write_store(tmp_path / "s.h5", num=64, blocks=16, resolutions={256: 1})
    with pytest.raises(UsageError, match="pixels"):
        run(as_typed(GridOptions, store=path, out=tmp_path / "g.png", num=64, scale=4), REPORT)


def test_a_damaged_image_is_not_shown(store, tmp_path):
    data = store.read_bytes()
    pixels = np.full((4, 4, 3), 7, np.uint8).tobytes()  # image 7, in the second block
    assert data.count(pixels) == 1
    store.write_bytes(data.replace(pixels, b"\0" + pixels[1:]))
    with pytest.raises(BadInputError, match="digest"):
        run(as_typed(GridOptions, store=store, out=tmp_path / "g.png"), REPORT)


def test_a_label_without_a_name_is_shown_by_its_number():
    tiles = {0: np.zeros((2, 2, 3), np.uint8)}
    assert draw_grid(tiles, [("7", np.array([0]))], 1).height == 2
