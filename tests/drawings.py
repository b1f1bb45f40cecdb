"""Images for tests, drawn from numbers: no data set, no network."""

import io
import zipfile

import numpy as np
from PIL import Image

from cdm_cli.data.resize import resize_image

COLOURS = {"apple": (200, 40, 30), "bird": (40, 90, 200), "cat": (60, 160, 70)}


def pixels(colour=(200, 40, 30), number=0, height=16, width=16):
    """A picture [H, W, 3] of its colour, never twice the same."""
    rng = np.random.default_rng([*colour, number])
    noise = rng.integers(-30, 31, (height, width, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def resize(image, resolution, crop="biggan"):
    """The pixels [resolution, resolution, C] of an image, as they are stored."""
    return resize_image(image, [resolution], crop)[0]


def encoded(image, kind="PNG", **options):
    """Encode a PIL image or an array to bytes."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def class_images(per_class=4, height=16, width=16, kind="PNG", classes=COLOURS):
    """Name inside the data set -> bytes: `per_class` images in each class folder."""
    return {
        f"{name}/{number:03d}.{kind.lower()}": encoded(pixels(colour, number, height, width), kind)
        for name, colour in classes.items()
        for number in range(per_class)
    }


def write_folder(root, files):
    """Write {name: bytes} under root, and return root."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_zip(path, files, method=zipfile.ZIP_STORED):
    """Write {name: bytes} as an archive, and return its path."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path
