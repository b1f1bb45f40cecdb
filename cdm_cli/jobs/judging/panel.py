"""A judge and the real images that it compares with: opened once, asked for any set of images."""

from dataclasses import dataclass

from cdm_cli.jobs.judging.images import ImageSet, collect
from cdm_cli.jobs.judging.judge import Judge, open_judge
from cdm_cli.jobs.judging.real import read_digest
from cdm_cli.jobs.judging.references import find_references
from cdm_cli.jobs.judging.rows import MetricRows, list_notes
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.metrics.collector import Collector
from cdm_cli.metrics.inception import InceptionExtractor
from cdm_cli.metrics.reference import Reference
from cdm_cli.metrics.table import Convention, MetricTable
from cdm_cli.options.judging import FeatureOptions
from cdm_cli.report import Report


@dataclass(frozen=True)
class Panel:
    """A judge and the statistics of the real images, opened once for any number of image sets."""

    judge: Judge
    references: list[Reference]
    session: Session


def open_panel(
    options: FeatureOptions, resolution: int, session: Session, *, features: bool = True
) -> Panel:
    """Load the judge, and compute or find the statistics of the real images.

    features: whether metrics beyond FID and IS will be asked for. Raises what `open_judge`
    and `find_references` raise.
    """
    judge = session.decide(
        lambda: open_judge(options, session.device),
        lambda judge: {
            "judge": judge.extractor.name,
            "judge's digest": judge.extractor.digest,
            "real images": read_digest(options.ref),
        },
    )
    tell_mode(options, judge, session.report)
    found = find_references(options.ref, resolution, judge.extractor, session, features=features)
    return Panel(judge, found, session)


def tell_mode(options: FeatureOptions, judge: Judge, report: Report) -> None:
    """Say where a mode of the Inception network is asked for and another network judges."""
    if options.mode != FeatureOptions.mode and not isinstance(judge.extractor, InceptionExtractor):
        report.say(f"--mode {options.mode}: of no effect, {options.features} judges, not inception")


def state_convention(images: ImageSet, judge: Judge, seed: int) -> Convention:
    """Return the convention of numbers of these images by this judge."""
    extractor = judge.extractor
    return Convention(
        num=images.num,
        balance=images.balance(),
        extractor=extractor.name,
        extractor_digest=extractor.digest,
        resize=extractor.resize,
        resolution=images.resolution,
        samples_digest=images.digest,
        seed=seed,
    )


def measure(
    panel: Panel, images: ImageSet, metrics: tuple[str, ...], *, seed: int = 0
) -> MetricTable:
    """Judge images in one pass and return the metrics: fid, is, kid, prdc, accuracy.

    Raises what `collect` and `MetricRows.table` raise.
    """
    collector = collect(images, panel.judge.extractor, panel.session, seed=seed)
    return make_table(panel, images, collector, metrics, seed)


def make_table(
    panel: Panel,
    images: ImageSet,
    collector: Collector,
    metrics: tuple[str, ...],
    seed: int,
    *,
    lenient: bool = False,
) -> MetricTable:
    """Turn what one pass over images left, the collector, into rows with their notes.

    lenient: a metric that the judge cannot give is left out with a note, not refused.
    """
    convention = state_convention(images, panel.judge, seed)
    knows = bool(panel.judge.classes) and panel.judge.classes == images.classes
    rows = MetricRows(collector, panel.references, convention, judge_knows_labels=knows)
    table = rows.make_table(metrics, lenient=lenient)
    for line in list_notes(metrics, convention, panel.judge.extractor, panel.references):
        table.note(line)
    return table
