"""Mirrors cdm_cli/jobs/pictures/tiles.py: where images and words stand."""

import numpy as np
import pytest
from PIL import ImageDraw

from cdm_cli.errors import UsageError
from cdm_cli.jobs.pictures.tiles import Sheet, draw_sheet, enlarge, make_rgb, place_frame

GREY = {k: np.full((8, 8, 3), 10 * k, np.uint8) for k in range(6)}
ROWS = [("", np.array([0, 1, 2])), ("", np.array([3, 4, 5]))]


@pytest.fixture
def written(monkeypatch):
    """What is written, and where."""
    found = {}
    real = ImageDraw.ImageDraw.text

    def text(self, at, words, **more):
        found[words] = at
        real(self, at, words, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return found


def test_without_words_there_is_nothing_but_images():
    picture = np.asarray(draw_sheet(Sheet(GREY, ROWS), 2))
    assert picture.shape == (2 * 18 - 2, 3 * 18 - 2, 3)
    assert picture[8::18, 8::18, 0].tolist() == [[0, 10, 20], [30, 40, 50]]


def test_images_stand_where_the_frame_says():
    sheet = Sheet(
        GREY, [("cat", ROWS[0][1]), ("a longer name", ROWS[1][1])], "title", ("a", "b\nc", "d")
    )
    frame, picture = place_frame(sheet, 4), np.asarray(draw_sheet(sheet, 4))
    assert picture.shape[:2] == frame.size[::-1]
    assert frame.left > 60
    assert frame.top == 3 * 14
    for row in range(2):
        for column in range(3):
            y, x = frame.top + row * frame.down, frame.left + column * frame.across
            assert (picture[y : y + 32, x : x + 32] == 10 * (3 * row + column)).all()
            assert (picture[y : y + 32, x - 1] != 10 * (3 * row + column)).all()


def test_a_head_stands_above_the_columns_that_it_spans(written):
    sheet = Sheet(GREY, ROWS, heads=("left", "", "right\nof two lines"))
    frame = place_frame(sheet, 8)
    draw_sheet(sheet, 8)
    assert written["left"][0] == frame.left + (frame.across + 64) // 2
    assert written["right"][0] == frame.left + 2 * frame.across + 32
    assert written["left"][1] == written["of two lines"][1] == written["right"][1] + 14 < frame.top


def test_columns_stand_together_and_each_group_apart(written):
    rows = [("", np.arange(6)), ("", np.array([5, 0]))]
    sheet = Sheet(GREY, rows, heads=("a", "b") * 3, together=2)
    frame, picture = place_frame(sheet, 2), np.asarray(draw_sheet(sheet, 2))
    starts = [0, 18, 46, 64, 92, 110]
    assert [frame.find_x(column) for column in range(6)] == starts
    assert frame.size == (126, frame.top + 34)
    assert picture[frame.top, starts, 0].tolist() == [0, 10, 20, 30, 40, 50]
    assert picture[frame.top, [17, 35, 45, 91], 0].tolist() == [255] * 4
    assert written["a"][0] == 92 + 8  # the last one


def test_what_is_written_gets_the_room_that_it_needs():
    wide = Sheet(GREY, ROWS, heads=("a head much wider than eight pixels", "b", "c"))
    assert place_frame(wide, 1).across > 100
    titled = Sheet(GREY, ROWS, "a title much wider than three times eight pixels")
    assert place_frame(titled, 1).size[0] > 200


def test_names_from_files_are_one_line_of_bounded_length(written):
    name = "two\nlines\x1b[31m" + "x" * 5000
    draw_sheet(Sheet(GREY, [(name, np.array([0]))], name), 8)
    (word,) = {word for word in written if word}
    assert word.startswith(r"two\nlines\x1b[31m")
    assert len(word) < 100


def test_a_picture_too_large_for_viewers_is_refused():
    with pytest.raises(UsageError, match="pixels"):
        place_frame(Sheet(GREY, ROWS * 200), 64)


def test_enlarging_repeats_the_nearest_pixel():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert np.array_equal(enlarge(image, 6), image.repeat(3, 0).repeat(3, 1))
    assert enlarge(image, 3)[:, :, 0].tolist() == [[0, 0, 3], [0, 0, 3], [6, 6, 9]]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_channels_become_three(channels):
    image = np.arange(4 * channels, dtype=np.uint8).reshape(2, 2, channels)
    shown = make_rgb(image)
    assert shown.shape == (2, 2, 3)
    assert np.array_equal(shown[..., 0], image[..., 0])
    assert np.array_equal(shown, image[..., :3]) == (channels >= 3)
