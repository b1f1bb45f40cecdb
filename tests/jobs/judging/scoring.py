"""Stores of coloured noise whose Classification Accuracy Score is known beforehand."""

import numpy as np

from cdm_cli.options.cas import CasOptions
from tests.asking import as_typed
from tests.tiny import write_store

COLOURS = {"apple": (200, 40, 30), "bird": (40, 90, 200), "cat": (60, 160, 70)}
SIDE = 8
RECIPE = {"net": "small", "steps": 12, "batch_size": 12, "lr": 0.1}


def coloured(labels, seed, *, side=SIDE, colours=COLOURS, channels=3):
    """The arrays of a part: each image is the colour of its label, with noise."""
    rng, labels = np.random.default_rng(seed), np.asarray(labels, np.int64)
    base = np.array(list(colours.values()))[labels][:, None, None, :channels]
    images = base + rng.integers(-30, 31, (len(labels), side, side, channels))
    return {
        "ids": np.arange(len(labels)), "labels": labels,
        f"images/{side}": np.clip(images, 0, 255).astype(np.uint8),
    }  # fmt: skip


def balanced(per_class):
    return np.arange(per_class * len(COLOURS)) % len(COLOURS)


def write_data(path, *, train=16, val=20, val_seed=2, classes=tuple(COLOURS), **changes):
    parts = {
        "train": coloured(balanced(train), 1, **changes),
        "val": coloured(balanced(val), val_seed, **changes),
    }
    return write_store(path, "prepared", parts, classes=classes)


def write_samples(path, arrays=None, *, classes=tuple(COLOURS), **changes):
    arrays = coloured(balanced(16), 3, **changes) if arrays is None else arrays
    return write_store(path, "samples", {"": arrays}, classes=classes)


def options(folder, store="samples.h5", *, out="cas", ref="data.h5", **changes):
    return as_typed(
        CasOptions, store=folder / store, ref=folder / ref, out=folder / out, **(RECIPE | changes)
    )
