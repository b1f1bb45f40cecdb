"""What of `cdm eval` cannot be computed, found from headers before the first image is judged."""

from collections.abc import Iterable
from pathlib import Path

from cdm_cli.cascade.checkpoint import find_stage, read_stage_file
from cdm_cli.data.store import Store, open_store
from cdm_cli.errors import MismatchError
from cdm_cli.jobs.judging.header import judge_fields
from cdm_cli.jobs.judging.images import ImageSet
from cdm_cli.jobs.judging.judge import is_classifier_stage
from cdm_cli.jobs.judging.npz import open_npz
from cdm_cli.jobs.judging.references import check_reference, check_resolution
from cdm_cli.jobs.judging.rows import check_number, no_images, unknown_classes
from cdm_cli.jobs.sampling.rows import part_of
from cdm_cli.names import OF_IMAGES, RUNS
from cdm_cli.options.judging import EvalOptions, FeatureOptions, parse_metrics


def check_metrics(options: EvalOptions, images: ImageSet) -> None:
    """Raise what a metric of the list would raise at its turn: UsageError, MismatchError.

    With `all`, what cannot be had is left out of the table, with a note, and is no error here; a
    judge or a reference that is not there, or does not fit, always is.
    """
    judge_fields(options.judge)
    check_reference(options.judge.ref, images.resolution)
    if "all" in options.metrics:
        return
    metrics = parse_metrics(options.metrics)
    for metric, num in _numbers(metrics, images, options.judge.ref):
        check_number(metric, num)
    if "accuracy" in metrics and classes_of_judge(options.judge) != images.classes:
        raise unknown_classes(options.judge.features)


def check_alike(options: EvalOptions, resolution: int, other: Store) -> None:
    """Raise MismatchError where another store lacks the resolution of the first."""
    _, part = part_of(other, options.split)
    if resolution in part.resolutions:
        return
    there = ", ".join(map(str, part.resolutions))
    flag = "--against " if other.path == options.against else ""
    raise MismatchError(
        f"{flag}{other.path} has images of {there} pixels, {options.compared[0]} is judged at "
        f"{resolution}",
        kept="nothing was judged",
        next=f"{flag or 'with '}a store of that resolution",
    )


def _numbers(metrics: Iterable[str], images: ImageSet, ref: Path) -> Iterable[tuple[str, int]]:
    """Yield each metric with how many images it has on the side that has fewer."""
    there = _real_images(ref, images.resolution)
    for metric in metrics:
        if metric in OF_IMAGES and there is None:
            raise no_images(metric, ref.name)
        yield metric, min(images.num, there or images.num) if metric in OF_IMAGES else images.num


def _real_images(ref: Path, resolution: int) -> int | None:
    """Return the images of the smallest part of the reference; None: it has statistics alone."""
    if ref.suffix != ".npz":
        with open_store(ref) as store:
            return min(part.num for part in store.parts.values())
    with open_npz(ref) as npz:
        if npz.images is not None:
            check_resolution(ref, [npz.images.resolution], resolution)
        return None if npz.images is None else npz.images.num


def classes_of_judge(judge: FeatureOptions) -> tuple[str, ...] | None:
    """Return the class names of a judge, None for a judge without known classes."""
    if not is_classifier_stage(judge):
        return None
    file = read_stage_file(find_stage(judge.features, Path(RUNS)))
    return file.data.classes if file.data else None
