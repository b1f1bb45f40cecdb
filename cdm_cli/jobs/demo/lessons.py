"""What a demo has shown: one sentence for each thing, with the numbers of this run."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cdm_cli.data.store import Part, open_store
from cdm_cli.jobs.sampling.store_images import choose_part
from cdm_cli.names import SWEEP, SWEEP_FILE

FOLLOWS, IGNORES = 0.9, 0.5  # the least correlation of one, the other is below
CERTAIN = 2  # standard errors
STORES = ("samples.h5", "enlarged.h5")
FID = ("fid", "train")


def correlate(lowres: Path, samples: Path) -> tuple[float, float]:
    """Return how closely samples follow their inputs: correlation of mean colours, of all pixels.

    Both are in [-1, 1]. lowres: a store of samples, or prepared data, of which the smallest val
    images are taken. samples: what was made of these; they are shrunk by area means to the size of
    the inputs, and compared id by id.
    """
    with open_store(lowres) as low, open_store(samples) as high:
        z_0 = _read_images(choose_part(low, None)[1], smallest=True)
        x_0 = _read_images(choose_part(high, None)[1])
    ids = sorted(set(z_0) & set(x_0))
    small = np.stack([z_0[id] for id in ids]).astype(np.float64)
    made = np.stack([_shrink(x_0[id], small.shape[1]) for id in ids])
    colours = _compute_correlation(small.mean((1, 2)), made.mean((1, 2)))
    return colours, _compute_correlation(small, made)


def _read_images(part: Part, *, smallest: bool = False) -> dict[int, np.ndarray]:
    name = f"images/{part.resolutions[0 if smallest else -1]}"
    blocks = (part.read_checked(b) for b in range(part.num_blocks))
    return {
        int(id): image.copy()
        for block in blocks
        for id, image in zip(block["ids"].tolist(), block[name], strict=True)
    }


def _shrink(image: np.ndarray, side: int) -> np.ndarray:
    factor = image.shape[0] // side
    return image.reshape(side, factor, side, factor, -1).mean((1, 3))


def _compute_correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def list_lessons(directory: Path) -> list[str]:
    """Return one sentence for each thing that the demo in a directory has shown."""
    return [
        _say_how_it_follows(*correlate(directory / "lowres.h5", directory / "samples.h5")),
        *_say_scores(
            json.loads((directory / "scores.json").read_text()), _read_accuracy_on_real(directory)
        ),
        _say_whether_noise_helps(json.loads((directory / SWEEP / SWEEP_FILE).read_text())),
    ]


def _say_how_it_follows(colours: float, pixels: float) -> str:
    least = min(colours, pixels)
    roughly = "ignores" if least < IGNORES else "follows only roughly"
    return (
        f"the super-resolution stage {'follows' if least >= FOLLOWS else roughly} its input: "
        f"colours correlate at {colours:.2f}, pixels at {pixels:.2f}"
    )


def _say_scores(table: Mapping[str, Any], real: float | None) -> Iterator[str]:
    mine, theirs = (_say_value(table, store, "fid", "train") for store in STORES)
    told = (one for one in table["comparisons"] if one["metric"] == "fid")
    gap = next(one for one in told if one["reference"] == "train")
    sure = abs(gap["difference"]) > CERTAIN * gap["uncertainty"]
    beats = "beats" if gap["difference"] < 0 else "falls behind"
    yield (
        f"it {beats if sure else 'cannot be told from'} merely enlarging the same inputs: "
        f"FID {mine} beside {theirs} (bicubic), {_say_with_error(gap, 'difference')} apart"
    )
    called, enlarged = (_find(table, store, "accuracy", "")["value"] for store in STORES)
    beside = "" if real is None else f", {real:.0%} of real ones"
    yield (
        f"a judge that knows real images calls {called:.0%} of its images by their class, "
        f"{enlarged:.0%} of those merely enlarged{beside}"
    )


def _find(table: Mapping[str, Any], store: str, metric: str, reference: str) -> dict[str, Any]:
    rows = (row for row in table["rows"] if row["extra"]["store"] == store)
    return next(row for row in rows if (row["metric"], row["reference"]) == (metric, reference))


def _say_value(table: Mapping[str, Any], *which: str) -> str:
    return _say_with_error(_find(table, *which), "value")


def _say_with_error(row: Mapping[str, Any], name: str) -> str:
    return f"{abs(row[name]):.2f} ± {row['uncertainty']:.2f}"


def _say_whether_noise_helps(sweep: Mapping[str, Any]) -> str:
    """Say whether noise on the input helps: whether s = 0 is worse, or the best, with certainty."""
    told = (one for one in sweep["comparisons"] if one["point"]["s"] == 0)
    none = next((one for one in told if (one["metric"], one["reference"]) == FID), None)
    if none is not None and none["verdict"] == "worse":
        return (
            "noise on its input helps, with certainty: without any (s = 0) FID is worse by "
            f"{_say_with_error(none, 'difference')}"
        )
    if none is not None and none["verdict"] == "best":
        return (
            "noise on its input does not help figures as simple as these, with certainty: "
            f"{sweep['conclusion']}"
        )
    num = sweep["convention"]["num"]
    return f"whether noise on its input helps, {num} images cannot tell: {sweep['conclusion']}"


def _read_accuracy_on_real(directory: Path) -> float | None:
    """Return the share of real val images that the judge called right as it was trained."""
    rows = map(json.loads, (directory / "runs/features/metrics.jsonl").read_text().splitlines())
    found = [row["accuracy"] for row in rows if "accuracy" in row]
    return found[-1] if found else None
