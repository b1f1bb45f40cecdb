"""Mirrors cdm_cli/data/images.py: every kind of file, against values known beforehand."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from cdm_cli.data import images
from cdm_cli.data.images import BadImageError, convert_channels, decode, probe, to_array
from tests.drawings import encoded, pixels


def png(width, height, depth, colour_type, rows, chunks=(), late=()):
    """A PNG with exactly these samples, for the kinds that Pillow cannot write."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", body), *late, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def test_decoding_needs_no_torch():
    code = "import sys, cdm_cli.data.resize; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_lossless_files_are_exact(kind):
    expected = pixels(number=1, height=5, width=9)
    image = decode(encoded(expected, kind, lossless=True))
    assert np.array_equal(to_array(image), expected)
    assert probe(encoded(expected, kind, lossless=True)) == (9, 5, False, ())


@pytest.mark.parametrize(
    ("data", "mode", "expected", "kinds"),
    [
        (png(8, 1, 1, 0, [b"\xaa"]), "L", [255, 0] * 4, ()),
        (png(4, 1, 2, 0, [b"\x1b"]), "L", [0, 85, 170, 255], ()),
        (png(2, 1, 16, 0, [b"\x7f\xff\x12\x34"]), "L", [0x7F, 0x12], ("16-bit",)),
        (png(1, 1, 16, 2, [b"\x7f\xff\x12\x34\xff\xff"]), "RGB", [0x7F, 0x12, 255], ("16-bit",)),
        (
            png(2, 1, 16, 0, [b"\x7f\xff\x12\x34"], [(b"tRNS", b"\x12\x34")]),
            "LA",
            [0x7F, 255, 0x12, 0],
            ("16-bit", "alpha"),
        ),
        (png(1, 1, 8, 0, [b"\1"], [(b"tRNS", b"\0\1")]), "LA", [1, 0], ("alpha",)),
        (
            png(2, 1, 8, 3, [b"\0\1"], [(b"PLTE", bytes(range(1, 7)))]),
            "RGB",
            [1, 2, 3, 4, 5, 6],
            ("palette",),
        ),
        (
            png(2, 1, 8, 3, [b"\0\1"], [(b"PLTE", bytes(range(1, 7))), (b"tRNS", b"\0\x80")]),
            "RGBA",
            [1, 2, 3, 0, 4, 5, 6, 128],
            ("alpha", "palette"),
        ),
        (
            png(1, 1, 8, 2, [b"\1\2\3"], [(b"tRNS", b"\0\1\0\2\0\3")]),
            "RGBA",
            [1, 2, 3, 0],
            ("alpha",),
        ),
    ],
)
def test_kinds_of_png(data, mode, expected, kinds):
    image = decode(data)
    assert image.mode == mode
    assert np.asarray(image).ravel().tolist() == expected
    assert probe(data).kinds == kinds
    assert probe(data).gray == (mode in ("L", "LA"))


def packed(samples, depth):
    """Rows of samples [H, W] or [H, W, 3] as a PNG of that depth holds them."""
    flat = samples.reshape(len(samples), -1)
    bits = (flat[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    return [row.tobytes() for row in np.packbits(bits.reshape(len(flat), -1), axis=1)]


@pytest.mark.parametrize(
    ("depth", "channels"), [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (8, 3), (16, 3)]
)
def test_a_colour_key_is_met_by_the_samples_as_they_are(depth, channels):
    """Every second pixel is near the key, one step in one channel; equal ones are transparent."""
    rng = np.random.default_rng(depth)
    samples = rng.integers(0, 2**depth, (5, 6, channels))
    highest = np.full(channels, 2**depth - 1)
    for key in (samples[2, 3], rng.integers(0, 2**depth, channels), highest):
        samples[::2, ::2], samples[4, 4] = key, key
        samples[4, 4, -1] ^= 1
        told = b"".join(int(part).to_bytes(2, "big") for part in key)
        data = png(6, 5, depth, channels - 1, packed(samples, depth), [(b"tRNS", told)])
        found = to_array(decode(data))
        assert np.array_equal(found[..., -1] == 0, (samples == key).all(-1))
        assert found[4, 4, -1] == 255
        eight = samples >> 8 if depth == 16 else samples * (255 // (2**depth - 1))
        assert np.array_equal(found[..., :-1], eight)


def test_of_a_key_wider_than_the_samples_the_lowest_bits_count():
    for depth, row in ((2, b"\x1b"), (4, b"\x01\x23"), (8, b"\0\1\2\3")):
        data = png(4, 1, depth, 0, [row], [(b"tRNS", b"\x70\x02")])
        assert to_array(decode(data))[0, :, 1].tolist() == [255, 255, 0, 255]


EXIF_6 = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"


def test_what_stands_behind_the_pixels_of_a_png_is_told_not_used():
    rows = [b"\0\1\2", b"\3\4\5"]
    before = images.decode_and_tell(png(3, 2, 8, 0, rows, [(b"eXIf", EXIF_6)]))
    assert (before.image.size, before.kinds) == ((2, 3), ("turned by EXIF",))
    late = images.decode_and_tell(
        png(3, 2, 8, 0, rows, late=[(b"eXIf", EXIF_6), (b"tRNS", b"\0\1")])
    )
    assert (late.image.size, late.image.mode, late.kinds) == ((3, 2), "L", (images.LATE_EXIF,))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_profiles_and_gamma_are_told_not_used(kind):
    x = pixels(number=2)
    plain, profiled = (encoded(x, kind, lossless=True, icc_profile=p) for p in (None, b"x" * 200))
    assert np.array_equal(to_array(decode(plain)), to_array(decode(profiled)))
    assert (probe(plain).kinds, probe(profiled).kinds) == ((), (images.PROFILE,))


@pytest.mark.parametrize(
    ("gamma", "others", "kinds"),
    [(45455, (), ()), (100_000, (), (images.GAMMA,)), (100_000, [(b"sRGB", b"\0")], ())],
)
def test_a_gamma_that_is_not_the_usual_one_is_told(gamma, others, kinds):
    chunks = [(b"gAMA", struct.pack(">I", gamma)), *others]
    data = png(2, 1, 8, 0, [b"\x10\x20"], chunks)
    assert to_array(decode(data)).ravel().tolist() == [0x10, 0x20]
    assert probe(data).kinds == kinds


def test_cmyk_is_converted_and_named():
    data = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
    assert probe(data).kinds == ("CMYK",)
    assert np.abs(to_array(decode(data)).astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    """Store the pixels so that a viewer turns them back; the viewer is our decoder."""
    expected = np.kron(np.arange(6).reshape(2, 3) * 40, np.ones((16, 16))).astype(np.uint8)
    stored = {
        1: expected, 2: expected[:, ::-1], 3: expected[::-1, ::-1], 4: expected[::-1],
        5: expected.T, 6: np.rot90(expected), 7: expected[::-1, ::-1].T, 8: np.rot90(expected, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, quality=100)
    found = to_array(convert_channels(decode(data), 1))[..., 0]
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 3
    assert probe(data).kinds == (("turned by EXIF",) if orientation > 1 else ())


def test_unreadable_exif_says_nothing():
    data = encoded(pixels(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 20)
    assert decode(data).size == (16, 16)
    assert probe(data).kinds == ()


def test_alpha_is_composed_on_white_and_kept_on_demand():
    rgba = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [10, 20, 30, 51]]], np.uint8)
    image = decode(encoded(rgba))
    assert np.array_equal(to_array(convert_channels(image, 4)), rgba)
    # 0.2 · colour + 0.8 · 255
    expected = [[255] * 3, [10, 20, 30], [206, 208, 210]]
    assert to_array(convert_channels(image, 3))[0].tolist() == expected
    assert to_array(convert_channels(image, 2))[0, :, 1].tolist() == [0, 255, 51]
    assert to_array(convert_channels(image, 1))[0, 0].tolist() == [255]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_any_channels_from_any(mode, channels):
    assert to_array(convert_channels(Image.new(mode, (2, 3)), channels)).shape == (3, 2, channels)


def test_arrays_of_1_to_4_channels_wrap_unchanged():
    for channels in (1, 2, 3, 4):
        x = np.arange(6 * channels, dtype=np.uint8).reshape(2, 3, channels)
        assert np.array_equal(to_array(images.from_array(x)), x)


def test_has_colour_sees_one_pixel():
    gray = np.full((8, 8, 3), 90, np.uint8)
    assert not images.has_colour(images.from_array(gray))
    gray[7, 7, 2] = 91
    assert images.has_colour(images.from_array(gray))
    hidden = np.dstack([gray, np.zeros((8, 8), np.uint8)])
    assert not images.has_colour(images.from_array(hidden)), "colour that nobody sees"
    assert not images.has_colour(Image.new("LA", (2, 2)))


def animation(kind):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def webp_of_canvas(width, height):
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4)
    body += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(body)) + body


BAD = {
    "empty": (b"", "not a PNG, JPEG or WebP"),
    "text": (b"<!DOCTYPE html>", "not a PNG, JPEG or WebP"),
    "gif": (encoded(pixels(), "GIF"), "not a PNG, JPEG or WebP"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a PNG, JPEG or WebP"),
    "apng": (animation("PNG"), "animated"),
    "moving webp": (animation("WEBP"), "animated"),
    "bomb png": (png(8193, 8192, 8, 2, [b""]), "2\\^26 pixels"),
    "bomb jpeg": (
        encoded(pixels(), "JPEG").replace(b"\0\x10\0\x10", b"\xff\xff\xff\xff"),
        "more than 2\\^26 pixels",
    ),
    "bomb webp": (webp_of_canvas(16384, 16384), "2\\^26 pixels"),
}


@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=BAD)
def test_bad_files_are_refused_from_the_header(data, reason):
    for read in (probe, decode):
        with pytest.raises(BadImageError, match=reason) as caught:
            read(data)
        assert "\n" not in str(caught.value)


def test_exactly_2_to_the_26_pixels_may_pass():
    assert probe(png(8192, 8192, 8, 0, [b""])).width == 8192


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_cut_files_are_bad(kind):
    data = encoded(pixels(height=64, width=64), kind)
    for length in (len(data) // 8, len(data) // 2, len(data) - 40):
        with pytest.raises(BadImageError):
            decode(data[:length])


def test_the_second_picture_of_a_phone_is_no_animation():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    stream = io.BytesIO()
    frames[0].save(stream, "MPO", save_all=True, append_images=frames[1:])
    assert to_array(decode(stream.getvalue()))[0, 0, 0] > 250
