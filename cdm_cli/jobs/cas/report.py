"""What is said of two classifiers: the score, each class, a plot, and images of some classes."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cdm_cli.data.disk import unlink
from cdm_cli.data.durable import write_file_atomically
from cdm_cli.jobs.cas.files import BEST, CLASSES, CLASSES_CSV, PLOT, TABLE_CSV, WORST
from cdm_cli.jobs.cas.page import say_gains
from cdm_cli.jobs.cas.pictures import draw_extremes, draw_plot
from cdm_cli.jobs.cas.plan import CasWork, TrainingSet
from cdm_cli.jobs.cas.training import Outcome
from cdm_cli.metrics.class_accuracy import (
    ClassAccuracy,
    compare_classes,
    list_tops,
    measure_gain_errors,
    measure_gains,
)
from cdm_cli.metrics.table import Convention, MetricRow, MetricTable
from cdm_cli.names import CAS_TABLE
from cdm_cli.report import Report
from cdm_cli.units import format_count

SHOWN = 6  # classes of each of Figures 9 and 10
METRICS = ("cas_top1", "cas_top5")
Lines = list[dict[str, Any]]


@dataclass(frozen=True)
class CasResult:
    """The score beside that of real images, and the classes between which it differs most.

    conclusion: how many classes gain and lose by samples, and of how many that is certain.
    better_than_real: those that gain; certainly_better and certainly_worse: those that gain, and
    lose, with certainty (`compare_classes`).
    """

    unshown: ClassVar = ("better_than_real", "certainly_better", "certainly_worse")

    store: str
    metrics: MetricTable
    conclusion: str
    better_than_real: int
    certainly_better: int
    certainly_worse: int
    gain_most: Lines
    lose_most: Lines
    written: list[Path]


def write_score(
    out: Path, work: CasWork, samples: Outcome, real: Outcome, report: Report, *, write: bool
) -> CasResult:
    """Compute the score from two outcomes; where asked, write its tables and pictures to `out`."""
    mine, theirs = samples.accuracy, real.accuracy
    table = make_table(work, samples, real)
    lines = list_classes(work, mine, theirs)
    best, worst = find_extremes(measure_gains(mine, theirs))
    texts: dict[str, Callable[[], bytes]] = {
        CAS_TABLE: lambda: _encode_json(table.to_json()),
        TABLE_CSV: lambda: table.to_csv().encode(),
        CLASSES: lambda: _encode_json({"classes": lines}),
        CLASSES_CSV: lambda: _encode_csv(lines),
        PLOT: lambda: draw_plot(lines, best, worst),
    }
    for name, classes in {BEST: best, WORST: worst}.items():
        if classes:
            texts[name] = partial(draw_extremes, work, classes)
        elif write:  # earlier versions drew it of classes that neither gain nor lose
            unlink(out / name)
    for name, content in texts.items():
        if write:
            write_file_atomically(out / name, content())
    return CasResult(
        store=work.samples.images.name,
        metrics=table,
        conclusion=say_gains(lines),
        better_than_real=int((measure_gains(mine, theirs) > 0).sum()),
        certainly_better=[line["verdict"] for line in lines].count("better"),
        certainly_worse=[line["verdict"] for line in lines].count("worse"),
        gain_most=[_shorten(lines[place]) for place in best],
        lose_most=[_shorten(lines[place]) for place in worst],
        written=[out / name for name in texts],
    )


def make_table(work: CasWork, samples: Outcome, real: Outcome) -> MetricTable:
    """Return top-1 and top-5 after training on samples, then on real images."""
    table = MetricTable(mixed=True)  # there may be fewer real images than samples
    for training, outcome in ((work.samples, samples), (work.real, real)):
        for metric, k in zip(METRICS, list_tops(len(work.classes)), strict=True):
            table.add(_make_row(work, training, outcome.accuracy, metric, k))
    for line in _list_notes(work, samples, real):
        table.note(line)
    return table


def _make_row(
    work: CasWork, training: TrainingSet, accuracy: ClassAccuracy, metric: str, k: int
) -> MetricRow:
    mean, error = accuracy.share(k)
    return MetricRow(
        metric=metric,
        value=mean,
        convention=make_convention(work, training),
        uncertainty=error,
        uncertainty_of="binomial standard error over validation images, one training run",
        reference="val",
        reference_num=work.val.num,
        reference_digest=work.val.digest,
        settings={"k": k, **work.recipe.model_dump()},
        extra={"trained_on": training.name},
    )


def make_convention(work: CasWork, training: TrainingSet) -> Convention:
    """Return how these images became a number; the classifier takes the place of an extractor."""
    recipe = work.recipe
    return Convention(
        num=training.images.num,
        balance=training.images.balance(),
        extractor=f"{recipe.network} trained {recipe.steps} steps",
        extractor_digest=recipe.digest,
        resize=recipe.describe_crop(),
        resolution=recipe.resolution,
        precision=f"{recipe.precision} in training, float32 in the test",
        seed=recipe.seed,
        samples_digest=training.digest,
    )


def _list_notes(work: CasWork, samples: Outcome, real: Outcome) -> list[str]:
    return [
        "the same recipe for both: the samples alone, or real training images alone",
        *_list_notes_of_sets(work),
        "certainly, and verdicts: said of all classes at once, any of them wrong with 5 %, for "
        "these two trainings of the classifier",
        *_list_notes_of_tests(len(work.classes), samples),
        *(
            f"left out: {format_count(outcome.skipped, 'step')} on {name}, whose gradient was "
            "not finite"
            for name, outcome in (("samples", samples), ("real images", real))
            if outcome.skipped
        ),
    ]


def _list_notes_of_sets(work: CasWork) -> list[str]:
    """Say how many images of each class the two classifiers learn from."""
    K, counts, had = len(work.classes), work.samples.counts, work.real.counts
    notes: list[str] = []
    short = int((had < counts).sum())
    if short:
        notes.append(
            f"trained on {had.sum()} real images against {counts.sum()} samples: of "
            f"{format_count(short, 'class')} train has fewer, and all of them were taken"
        )
    lacking, empty = (counts == 0) & (had > 0), (counts == 0) & (had == 0)
    if not short and not lacking.any():
        notes.append(f"trained on as many real images as samples of each class, {had.sum()} in all")
    if lacking.any():
        notes.append(
            f"{int(lacking.sum())} of {K} classes have no sample at all; of real images they "
            "have as many as the others on average"
        )
    if empty.any():
        notes.append(f"{int(empty.sum())} of {K} classes have neither a sample nor a real image")
    return notes


def _list_notes_of_tests(K: int, samples: Outcome) -> list[str]:
    """Say what the test does not tell."""
    notes: list[str] = []
    untested = sum(not num for num in samples.tested)
    if untested:
        notes.append(f"{untested} of {K} classes have no validation image and are not judged")
    if list_tops(K)[1] == K:
        notes.append(f"cas_top5 counts the first {K} of {K} classes: it says nothing")
    return notes


def list_classes(work: CasWork, mine: ClassAccuracy, theirs: ClassAccuracy) -> Lines:
    """Return one flat mapping for each class; None where no image of it was tested."""
    top, columns = list_tops(len(work.classes))[1], dict[str, Any]()
    columns["samples"], columns["real_images"] = work.samples.counts, work.real.counts
    columns["tested"] = mine.tested
    columns["top1"], columns["top5"] = mine.list_by_class(1), mine.list_by_class(top)
    columns["real_top1"], columns["real_top5"] = theirs.list_by_class(1), theirs.list_by_class(top)
    columns["gain"], columns["gain_error"] = (
        measure_gains(mine, theirs),
        measure_gain_errors(mine, theirs),
    )
    verdicts = compare_classes(mine, theirs)
    return [
        {"id": y, "class": name}
        | {key: _take_number(values[y]) for key, values in columns.items()}
        | {"verdict": verdicts[y]}
        for y, name in enumerate(work.classes)
    ]


def _take_number(value: Any) -> int | float | None:
    number = value.item()
    return number if number == number else None


def find_extremes(gained: np.ndarray) -> tuple[list[int], list[int]]:
    """Return the classes that gain most, and those that lose most, by samples; most extreme first.

    gained: accuracy [K] after samples less that after real images, nan where not tested. At most
    six of each; classes that neither gain nor lose are in neither, nor those not tested.
    """
    order = np.argsort(-gained, kind="stable").tolist()  # nan is the last
    best = [y for y in order if gained[y] > 0]
    worst = [y for y in reversed(order) if gained[y] < 0]
    return best[:SHOWN], worst[:SHOWN]


def _shorten(line: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "class", "top1", "real_top1", "gain", "gain_error", "verdict")
    return {name: line[name] for name in names}


def _encode_json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _encode_csv(lines: Lines) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue().encode()
