"""Numbers of images in memory: what `cdm eval` says of stores, with its errors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from cdm_cli.api.asked import make_options, require_loaded, require_pixels, take_integers
from cdm_cli.api.reading import Samples
from cdm_cli.api.warned import choose_report
from cdm_cli.errors import MismatchError, UsageError, quote
from cdm_cli.jobs.judging.images import ImageSet, collect
from cdm_cli.jobs.judging.judge import Judge, open_judge
from cdm_cli.jobs.judging.panel import Panel, measure, tell_mode
from cdm_cli.jobs.runtime.device import pick_device
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.reference import Reference
from cdm_cli.metrics.table import MetricTable
from cdm_cli.names import METRICS, Device, InceptionMode
from cdm_cli.options.judging import EvalOptions, FeatureOptions
from cdm_cli.options.sampling import Compute
from cdm_cli.report import Report

Images = NDArray[np.uint8] | Samples
OF_ARRAYS = tuple(name for name in METRICS if name != "nn")


@dataclass(frozen=True)
class LoadedJudge:
    """What judges images, on its device. compute.batch_size None: what suits the device."""

    judge: Judge
    device: torch.device
    compute: Compute

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that it tells apart, whose places are the labels; () for Inception."""
        return self.judge.classes

    def session(self, report: Report | None) -> Session:
        """Return the session in which it judges, alone."""
        return Session(self.device, self.compute, report=choose_report(report))


def load_judge(
    features: str = "inception",
    *,
    mode: InceptionMode = "clean",
    device: Device = "auto",
    batch_size: int | None = None,
) -> LoadedJudge:
    """Load what judges: "inception", or a classifier stage, as `cdm eval --features` names it.

    Raises CdmError for what is not there, saying which file of weights to bring where.
    """
    compute = {"device": device, "batch_size": batch_size}
    options = make_options(FeatureOptions, features=features, mode=mode, compute=compute)
    where = pick_device(options.compute.device)
    judge = open_judge(options, where)
    tell_mode(options, judge, choose_report(None))
    return LoadedJudge(judge, where, options.compute)


def reference(
    real: Images, *, features: str | LoadedJudge = "inception", report: Report | None = None
) -> Reference:
    """Judge real images once, for any number of comparisons by the same judge."""
    judge = _load(features)
    images = _as_image_set("real", real, judge)
    session = judge.session(report)
    extractor = judge.judge.extractor
    seen = Reference.of("real", collect(images, extractor, session, uncertain=False), "")
    return replace(seen, judge=extractor.digest, resolution=images.resolution)


def evaluate(
    samples: Images,
    real: Images | Reference,
    metrics: str | Sequence[str] = "fid",
    *,
    features: str | LoadedJudge = "inception",
    seed: int = 0,
    report: Report | None = None,
) -> MetricTable:
    """Judge images against real ones: what `cdm eval` says of stores with the same images.

    samples, real: uint8 [N, H, W, C], or Samples, whose labels are places among the judge's
    classes. metrics: of "fid", "is", "kid", "prdc", "accuracy". Raises CdmError.
    """
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    make_options(EvalOptions, metrics=names, seed=seed)
    if odd := [name for name in names if name not in OF_ARRAYS]:
        raise UsageError(f"metrics: {odd[0]} takes stores", next=f"cdm eval {quote(odd[0])}")
    judge = _load(features)
    images = _as_image_set("samples", samples, judge)
    against = real if isinstance(real, Reference) else reference(real, features=judge)
    _check_fits(images, against, judge)
    if "accuracy" in names:
        _check_labels(images, judge)
    panel = Panel(judge.judge, [against], judge.session(report))
    return measure(panel, images, names, seed=seed)


def fid(
    samples: Images,
    real: Images | Reference,
    *,
    features: str | LoadedJudge = "inception",
    report: Report | None = None,
) -> Estimate:
    """Return FID of images against real ones: its `value`, `error`, and `corrected` for its bias.

    `one.minus(other)` is the paired difference of samples with the same ids, as of one seed.
    """
    return evaluate(samples, real, "fid", features=features, report=report).row("fid").estimate


def _load(features: str | LoadedJudge) -> LoadedJudge:
    judge = load_judge(features) if isinstance(features, str) else features
    return require_loaded("features", judge, LoadedJudge, "load_judge")


def _check_fits(samples: ImageSet, real: Reference, judge: LoadedJudge) -> None:
    """Raise MismatchError where samples and real images would be compared in two ways."""
    if real.judge and real.judge != judge.judge.extractor.digest:
        raise MismatchError(
            "the real images were judged by another judge", next="features=, as for the reference"
        )
    if real.resolution and real.resolution != samples.resolution:
        raise MismatchError(
            f"samples have {samples.resolution} pixels, the real images {real.resolution}",
            next="cdm_cli.read(…, resolution=) for both",
        )


def _check_labels(images: ImageSet, judge: LoadedJudge) -> None:
    K, labels = len(judge.classes), images.labels
    if images.classes and images.num and not 0 <= labels.min() <= labels.max() < K:
        raise MismatchError(
            f"labels outside 0..{K - 1}, the classes of the judge",
            next="labels are places among the judge's classes",
        )


def _as_image_set(name: str, given: Images, judge: LoadedJudge) -> ImageSet:
    """Return images in memory as an ImageSet; images without labels are all of class 0."""
    images = given.images if isinstance(given, Samples) else given
    require_pixels(name, images)
    rows = np.arange(len(images))
    if not isinstance(given, Samples):
        return ImageSet(name, "", images, rows, rows, np.zeros_like(rows), ())
    ids, labels = (
        take_integers(f"{what} of {name}", each, len(images))
        for what, each in (("ids", given.ids), ("labels", given.labels))
    )
    return ImageSet(name, "", images, rows, ids, labels, judge.classes)
