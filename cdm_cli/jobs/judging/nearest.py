"""Are samples copies? Their nearest training images, as distances and as a picture.

Real images that the model never saw (val) are searched in the same way: samples that lie
nearer to the training images than those do are the sign of memorisation.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cdm_cli.jobs.judging.images import ImageSet, read_batches
from cdm_cli.jobs.pictures.tiles import Sheet, choose_scale, draw_sheet, make_rgb
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.runtime.world import World
from cdm_cli.metrics.collector import Collector
from cdm_cli.metrics.features import FeatureExtractor
from cdm_cli.metrics.neighbours import Nearest
from cdm_cli.metrics.reference import Reference
from cdm_cli.metrics.table import Convention, MetricRow
from cdm_cli.nets.memory import Halving

QUERIES = 1000  # samples, and validation images, that are looked up
SHOWN, NEIGHBOURS = 16, 5
QUANTILE = 0.05


@dataclass(frozen=True)
class NearestImages:
    """What `search_nearest` found for Q samples and V images of val.

    places: [Q], of the samples in their set. neighbours: [Q, k], places of the nearest training
    images, the nearest first, and distances: [Q, k], of their features. val: [V], the distances of
    images of val to the nearest one.
    """

    places: np.ndarray
    distances: np.ndarray
    neighbours: np.ndarray
    val: np.ndarray


def search_nearest(
    collector: Collector,
    training: ImageSet,
    val: Reference | None,
    extractor: FeatureExtractor,
    session: Session,
) -> NearestImages:
    """Show the judge every training image once; return the nearest ones of samples and of val.

    Of both, those are looked up whose features were kept, at most QUERIES.
    """
    samples = collector.kept[:QUERIES]
    real = np.zeros((0, samples.shape[1]), np.float32)
    if val is not None and val.features is not None:
        real = val.features[:QUERIES]
    queries = torch.cat([samples, torch.from_numpy(real).to(samples)])
    nearest = Nearest(queries, min(NEIGHBOURS, training.num))
    judge = Halving(extractor, session.device, session.report.say)
    with session.report.track(f"search {training.name}", training.num, "images") as advance:
        for places, batch in read_batches(training, session):
            features, _ = judge(batch)
            nearest.add(features, torch.from_numpy(places))
            advance(len(places) * session.world.size, "")
    distances, neighbours = _join(nearest, session.world)
    Q = len(samples)
    return NearestImages(collector.kept_places[:Q], distances[:Q], neighbours[:Q], distances[Q:, 0])


def _join(nearest: Nearest, world: World) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest over all processes: distances [Q, k] and places [Q, k]."""
    Q, k = len(nearest.queries), nearest.k
    found = torch.zeros(2, Q, world.size, k, dtype=torch.float64)
    found[0, :, world.rank] = torch.inf  # a process may have seen fewer images than k
    num = nearest.ids.shape[1]
    found[0, :, world.rank, :num] = nearest.distances.cpu()
    found[1, :, world.rank, :num] = nearest.ids.double().cpu()
    found = found.flatten(2)
    on_device = found.to(nearest.queries.device)
    world.sum_([on_device], torch.zeros(1, dtype=torch.float64, device=on_device.device))
    distances, order = on_device[0].topk(k, largest=False)
    ids = on_device[1].gather(1, order).long()
    return distances.cpu().numpy(), ids.cpu().numpy()


def make_nearest_rows(
    found: NearestImages, convention: Convention, training: ImageSet
) -> list[MetricRow]:
    """Return the median distance of samples, and how many lie closer than unseen images do."""
    nearest = found.distances[:, 0]

    def row(metric: str, value: float, error: float, kind: str, **settings: Any) -> MetricRow:
        return MetricRow(
            metric=metric,
            value=float(value),
            convention=convention,
            uncertainty=error,
            uncertainty_of=kind,
            reference="train",
            reference_num=training.num,
            reference_digest=training.digest,
            settings={"samples": len(nearest), **settings},
        )

    kind = "standard error of the median, by its order statistics"
    made = [row("nn_distance", np.median(nearest), measure_median_error(nearest), kind)]
    if len(found.val):
        error, val = measure_median_error(found.val), len(found.val)
        made.append(row("nn_distance_val", np.median(found.val), error, kind, real=val))
        close = float((nearest < np.quantile(found.val, QUANTILE)).mean())
        error = (close * (1 - close) / len(nearest)) ** 0.5
        kind = "binomial standard error"
        made.append(row("nn_close", close, error, kind, quantile_of_val=QUANTILE))
    return made


def measure_median_error(x: np.ndarray) -> float:
    """Return the standard error of the median of x [N], whatever the distribution.

    The rank of the true median is binomial, with a standard deviation of sqrt(N) / 2 (David &
    Nagaraja 2003, 7.1): half of the distance between the values so far below and above.
    """
    step = 0.5 / max(len(x), 1) ** 0.5
    low, high = np.quantile(x, [max(0.5 - step, 0), min(0.5 + step, 1)])
    return float(high - low) / 2


def list_nearest(
    found: NearestImages, images: ImageSet, training: ImageSet
) -> list[dict[str, Any]]:
    """Return the samples that lie nearest to a training image, the nearest first."""
    lines: list[dict[str, Any]] = []
    for q in _choose_nearest(found):
        place, near = int(found.places[q]), int(found.neighbours[q, 0])
        lines.append(
            {
                "sample": int(images.ids[place]),
                "class": images.classes[images.labels[place]],
                "train": int(training.ids[near]),
                "train_class": training.classes[training.labels[near]],
                "distance": float(found.distances[q, 0]),
                "pixel_rms": _measure_pixel_rms(
                    _read_one(images, place), _read_one(training, near)
                ),
            }
        )
    return lines


def _choose_nearest(found: NearestImages) -> list[int]:
    return np.argsort(found.distances[:, 0], kind="stable")[:SHOWN].tolist()


def _read_one(images: ImageSet, place: int) -> Tensor:
    return images.read(np.array([place]))[0]


def _measure_pixel_rms(x: Tensor, y: Tensor) -> float | None:
    if x.shape != y.shape:
        return None
    return float((x.double() - y.double()).square().mean().sqrt())


def draw_nearest(found: NearestImages, images: ImageSet, training: ImageSet) -> Image.Image:
    """Draw each sample of `list_nearest`, left, beside its nearest training images."""
    tiles: list[np.ndarray] = []
    rows: list[tuple[str, np.ndarray]] = []
    for q in _choose_nearest(found):
        start = len(tiles)
        tiles.append(_lay_out(_read_one(images, int(found.places[q]))))
        tiles += [_lay_out(_read_one(training, int(near))) for near in found.neighbours[q]]
        rows.append((f"{found.distances[q, 0]:.3g}", np.arange(start, len(tiles))))
    heads = ("sample", "nearest of train", *[""] * (found.neighbours.shape[1] - 1))
    return draw_sheet(
        Sheet(dict(enumerate(tiles)), rows, heads=heads), choose_scale(images.resolution)
    )


def _lay_out(x: Tensor) -> np.ndarray:
    return make_rgb(x.permute(1, 2, 0).numpy())
