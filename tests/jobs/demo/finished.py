"""What a demo leaves, as far as it draws and tells of it."""

import json

import numpy as np

from cdm_cli.jobs.demo.drawing import FIGURES, draw
from tests.tiny import write_store


def drawn(per_class, seed, side=8):
    rng = np.random.default_rng(seed)
    images = np.stack([draw(name, side, rng) for name in FIGURES for _ in range(per_class)])
    return {
        f"images/{side}": images, f"images/{side // 2}": shrunk(images, side // 2),
        "labels": np.repeat(np.arange(len(FIGURES)), per_class), "ids": np.arange(len(images)),
    }  # fmt: skip


def shrunk(images, side):
    factor = images.shape[1] // side
    parts = images.reshape(-1, side, factor, side, factor, 3)
    return parts.mean((2, 4)).round().astype(np.uint8)


def write_data(path):
    parts = {"train": drawn(60, 0), "val": drawn(6, 1)}
    return write_store(path, "prepared", parts, classes=list(FIGURES))


def row(store, metric, reference, value, uncertainty=0.05):
    return {
        "extra": {"store": store}, "metric": metric, "reference": reference, "value": value,
        "uncertainty": uncertainty,
    }  # fmt: skip


def scores(fid=0.5, gap=-1.0, error=0.1):
    mine, theirs = "samples.h5", "enlarged.h5"
    told = {"metric": "fid", "reference": "train", "difference": gap, "uncertainty": error}
    return {
        "rows": [
            row(mine, "fid", "train", fid), row(theirs, "fid", "train", fid - gap),
            row(mine, "accuracy", "", 0.93), row(theirs, "accuracy", "", 0.55),
        ],
        "comparisons": [told | {"reference": "val", "difference": 9.0}, told],
    }  # fmt: skip


def sweep(verdict="as good as the best", difference=0.1):
    one = {"metric": "fid", "reference": "train", "uncertainty": 0.02}
    points = [
        {"point": {"augment": "truncated", "s": 251}, "verdict": "worse", "difference": 0.5},
        {"point": {"augment": "none", "s": 0}, "verdict": verdict, "difference": difference},
    ]
    told = "By FID nothing tells 6 points apart."
    return {
        "comparisons": [one | point for point in points], "conclusion": told,
        "convention": {"num": 200},
    }  # fmt: skip


def write_demo(directory, inverted=False, scored=None, swept=None):
    """Write what the commands of a demo leave: samples, or their inverse, and tables."""
    val = drawn(6, 1)
    low = {name: val[name] for name in ("images/4", "labels", "ids")}
    high = {name: val[name] for name in ("images/8", "labels", "ids")}
    if inverted:
        high["images/8"] = 255 - high["images/8"]
    for name, arrays in (("lowres.h5", low), ("samples.h5", high), ("again.h5", high)):
        write_store(directory / name, "samples", {"": arrays}, classes=list(FIGURES))
    (directory / "runs" / "features").mkdir(parents=True)
    (directory / "runs/features/metrics.jsonl").write_text('{"step": 1}\n{"accuracy": 0.991}\n')
    (directory / "scores.json").write_text(json.dumps(scored or scores()))
    (directory / "sweep").mkdir()
    (directory / "sweep/sweep.json").write_text(json.dumps(swept or sweep()))
