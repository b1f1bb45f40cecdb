"""What of `cdm eval` cannot be computed, found from headers before the first image is judged."""

from pathlib import Path

from cdm_cli.cascade.stagefile import find_stage, read_stage_file
from cdm_cli.data.store import Store
from cdm_cli.errors import MismatchError
from cdm_cli.jobs.judging.header import identify_judge
from cdm_cli.jobs.judging.images import ImageSet
from cdm_cli.jobs.judging.judge import is_classifier_stage
from cdm_cli.jobs.judging.real import open_real
from cdm_cli.jobs.judging.rows import check_number, no_images_error, unknown_classes_error
from cdm_cli.jobs.sampling.store_images import choose_part
from cdm_cli.names import OF_IMAGES, RUNS
from cdm_cli.options.judging import EvalOptions, FeatureOptions


def check_metrics(options: EvalOptions, images: ImageSet) -> None:
    """Raise what a metric of the list would raise at its turn: UsageError, MismatchError.

    With `all`, what cannot be had is left out of the table, with a note, and is no error here; a
    judge or a reference that is not there, or does not fit, always is.
    """
    identify_judge(options.judge)
    ref = options.judge.ref
    with open_real(ref) as real:
        parts = real.images(images.resolution).values()
        there = min((part.num for part in parts), default=None)
    if options.lenient:
        return
    for metric in options.names:
        if metric in OF_IMAGES and there is None:
            raise no_images_error(metric, ref.name)
        num = min(images.num, there or images.num) if metric in OF_IMAGES else images.num
        check_number(metric, num)
    if "accuracy" in options.names and read_judge_classes(options.judge) != images.classes:
        raise unknown_classes_error(options.judge.features)


def check_alike(options: EvalOptions, resolution: int, other: Store) -> None:
    """Raise MismatchError where another store lacks the resolution of the first."""
    _, part = choose_part(other, options.split)
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


def read_judge_classes(judge: FeatureOptions) -> tuple[str, ...] | None:
    """Return the class names of a judge, None for a judge without known classes."""
    if not is_classifier_stage(judge):
        return None
    file = read_stage_file(find_stage(judge.features, Path(RUNS)))
    return file.data.classes if file.data else None
