"""Mirrors cdm_cli/jobs/pictures/grid.py: which images stand where, and in which colours.

Here too: shown.py.
"""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cdm_cli.data.store import PartSpec, StoreSpec, create
from cdm_cli.errors import BadInputError, MissingError, UsageError, WouldOverwriteError
from cdm_cli.jobs.pictures.grid import run
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
                rows = part.list_rows(b)
                part.write_block(b, block(labels[rows.start : rows.stop], resolutions, rows.start))
    return path


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "samples.h5")


def shown(path, side, result):
    """The grey values at the middles of the tiles, row by row; what is written is left and above.

    The last row ends the picture; the first tile begins where its lower edge does.
    """
    with Image.open(path) as image:
        picture = np.asarray(image.convert("L")).astype(int)
    top = picture.shape[0] - result.rows * (side + 2) + 2
    left = np.flatnonzero(picture[top + side - 1] != 255)[0]
    middles = [
        [(top + side // 2 + y * (side + 2), left + side // 2 + x * (side + 2))
         for x in range(result.columns)]
        for y in range(result.rows)
    ]  # fmt: skip
    return [[picture[at] if at[1] < picture.shape[1] else 255 for at in row] for row in middles]


def grid(tmp_path, *stores, **changes):
    return run(as_typed(GridOptions, stores=stores, out=tmp_path / "g.png", **changes), REPORT)


def test_the_first_samples_in_order(store, tmp_path):
    result = grid(tmp_path, store, columns=5, scale=8)
    assert (result.rows, result.columns, result.resolution) == (3, 5, 4)
    assert shown(tmp_path / "g.png", 32, result) == [
        [0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 255, 255, 255],
    ]  # fmt: skip


def test_a_row_for_each_class(store, tmp_path):
    result = grid(tmp_path, store, per_class=2, scale=8)
    assert (result.rows, result.columns) == (3, 2)
    assert shown(tmp_path / "g.png", 32, result) == [[0, 3], [1, 4], [2, 5]]


def test_rows_and_the_whole_are_named(store, tmp_path, monkeypatch):
    """A row by its class where it has one, else by its ids."""
    written = []
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda self, at, text, **_: written.append(text)
    )
    grid(tmp_path, store, columns=5)
    assert written == ["samples.h5: 12 of 12 images, 4×4", "0–4", "5–9", "10–11"]
    written.clear()
    run(as_typed(GridOptions, stores=(store,), out=tmp_path / "h.png", per_class=1), REPORT)
    assert written == ["samples.h5: 3 of 12 images, 4×4", *CLASSES]


def test_prepared_data_are_spread_and_shown_from_val(tmp_path):
    path = write_store(tmp_path / "data.h5", kind="prepared", parts=("train", "val"))
    result = grid(tmp_path, path, num=3, columns=3, scale=8)
    assert shown(tmp_path / "g.png", 32, result) == [[0, 6, 11]]
    with pytest.raises(UsageError, match="--split test"):
        grid(tmp_path, path, split="test")


def test_only_finished_blocks_are_shown(tmp_path):
    path = write_store(tmp_path / "part.h5", blocks=1)
    result = grid(tmp_path, path, scale=8, columns=6)
    assert shown(tmp_path / "g.png", 32, result) == [[0, 1, 2, 3]]
    empty = write_store(tmp_path / "empty.h5", blocks=0)
    with pytest.raises(MissingError, match="no finished image"):
        grid(tmp_path, empty)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_channels_and_the_default_scale(tmp_path, channels, mode):
    path = write_store(tmp_path / "s.h5", resolutions={4: channels, 8: channels})
    result = run(as_typed(GridOptions, stores=(path,), out=tmp_path / "g.png", num=1), REPORT)
    assert result.resolution == 8
    with Image.open(tmp_path / "g.png") as picture:
        assert picture.mode == mode
        assert picture.size[1] == 64 + 14  # under its title


def test_a_grid_replaces_one_of_the_same_stores_and_nothing_else(store, tmp_path):
    out, foreign = tmp_path / "g.png", tmp_path / "mine.png"
    run(as_typed(GridOptions, stores=(store,), out=out), REPORT)
    first = out.read_bytes()
    run(as_typed(GridOptions, stores=(store,), out=out, num=2), REPORT)
    assert out.read_bytes() != first
    run(as_typed(GridOptions, stores=(store,), out=out), REPORT)
    assert out.read_bytes() == first
    Image.new("RGB", (8, 8)).save(foreign)
    for stores, taken in (((store, store), out), ((store,), foreign)):
        before = taken.read_bytes()
        with pytest.raises(WouldOverwriteError, match="no picture of") as refused:
            run(as_typed(GridOptions, stores=stores, out=taken), REPORT)
        assert refused.value.next == f"-o {taken.with_stem(taken.stem + '-2')}"
        assert taken.read_bytes() == before


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
    values = {"stores": (store,), "out": tmp_path / "g.png"} | changes
    with pytest.raises(UsageError, match=part):
        run(as_typed(GridOptions, **values), REPORT)
    assert not (tmp_path / "g.png").exists()


def test_a_picture_too_large_for_viewers_is_refused(tmp_path):
    path = write_store(tmp_path / "s.h5", num=64, blocks=16, resolutions={256: 1})
    with pytest.raises(UsageError, match="pixels"):
        run(as_typed(GridOptions, stores=(path,), out=tmp_path / "g.png", num=64, scale=4), REPORT)


def test_a_damaged_image_is_not_shown(store, tmp_path):
    data = store.read_bytes()
    pixels = np.full((4, 4, 3), 7, np.uint8).tobytes()  # image 7, in the second block
    assert data.count(pixels) == 1
    store.write_bytes(data.replace(pixels, b"\0" + pixels[1:]))
    with pytest.raises(BadInputError, match="digest"):
        run(as_typed(GridOptions, stores=(store,), out=tmp_path / "g.png"), REPORT)


def test_of_several_stores_each_is_a_column_and_each_row_an_id(store, tmp_path):
    small = write_store(tmp_path / "small.h5", resolutions={2: 1}, blocks=2)
    result = grid(tmp_path, small, store, num=3, scale=16)
    assert (result.rows, result.columns, result.resolution) == (3, 2, 4)
    with Image.open(tmp_path / "g.png") as picture:
        assert picture.mode == "RGB"


def test_columns_are_the_stores(store, tmp_path):
    with pytest.raises(UsageError, match="each of the 2 stores is a column"):
        grid(tmp_path, store, store, columns=2)
