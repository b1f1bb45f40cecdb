"""From statistics to rows: every metric, its uncertainty, and what a reader must be told."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from cdm_cli.errors import MismatchError, UsageError
from cdm_cli.metrics.collector import Collector
from cdm_cli.metrics.features import FeatureExtractor
from cdm_cli.metrics.inception_score import NUM_SPLITS
from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.kernel import NUM_SUBSETS, SUBSET_SIZE, estimate_kernel_distance
from cdm_cli.metrics.neighbours import PRDC, prdc
from cdm_cli.metrics.reference import Reference
from cdm_cli.metrics.table import Convention, MetricRow, MetricTable
from cdm_cli.units import format_count

FULL, SELECTION = 50_000, 10_000  # samples by convention: to publish, to choose a model
PRDC_K, PRDC_K_DENSITY = 3, 5


def check_number(metric: str, num: int) -> None:
    """Raise UsageError for fewer images than a metric takes."""
    least = {"is": 2 * NUM_SPLITS, "prdc": PRDC_K_DENSITY + 1}.get(metric, 0)
    if num < least:
        raise UsageError(
            f"{metric}: {format_count(num, 'image', 'are')} too few, it takes {least}",
            next=f"judge {least} or more",
        )


def no_images_error(metric: str, name: str) -> MismatchError:
    """Return the error of a metric that compares images, asked of statistics."""
    return MismatchError(
        f"{metric} needs real images, {name} brings their mean and covariance alone",
        next="--ref data.h5, or ask for fid",
    )


def unknown_classes_error(judge: str) -> MismatchError:
    """Return the error of a judge that cannot call the samples by their labels."""
    return MismatchError(
        f"accuracy: {judge} does not know the classes of the samples",
        next="--features with a classifier that was trained on them",
    )


class MetricRows:
    """Turns one judge's statistics of one set of samples into rows, against some references."""

    def __init__(
        self,
        collector: Collector,
        references: list[Reference],
        convention: Convention,
        *,
        judge_knows_labels: bool,
    ) -> None:
        self.collector, self.references, self.convention = collector, references, convention
        self.judge_knows_labels = judge_knows_labels
        self.remarks: list[str] = []

    def make_table(self, metrics: tuple[str, ...], *, lenient: bool = False) -> MetricTable:
        """Return the rows of the metrics asked for.

        Raises UsageError for too few samples and MismatchError for a reference without images;
        lenient: leaves the metric out and says why.
        """
        makers: dict[str, Callable[[], Iterator[MetricRow]]] = {
            "fid": self.fid,
            "is": self.inception_score,
            "kid": self.kid,
            "prdc": self.prdc,
            "accuracy": self.accuracy,
        }
        table = MetricTable()
        for metric in metrics:
            if metric == "nn":  # its rows come from images, not from statistics: nearest.py
                continue
            try:
                table.extend(makers[metric]())
            except (UsageError, MismatchError) as error:
                if not lenient:
                    raise
                table.note(f"left out: {error.what}")
        for remark in self.remarks:
            table.note(remark)
        return table

    def fid(self) -> Iterator[MetricRow]:
        """Yield FID against every reference, and the gap of val and train."""
        found: dict[str, Estimate] = {}
        estimates = self.collector.frechets([one.gaussian for one in self.references])
        for reference, estimate in zip(self.references, estimates, strict=True):
            found[reference.name] = estimate
            yield self._make_distance_row("fid", estimate, reference)
        if {"train", "val"} <= set(found):
            row = self._make_distance_row("fid_gap", found["val"].minus(found["train"]))
            yield replace(row, reference="val - train")

    def inception_score(self) -> Iterator[MetricRow]:
        """Yield the Inception Score, of whatever network judges."""
        if self.collector.scores is None:
            raise MismatchError(
                f"is: {self.convention.extractor} gives no class probabilities",
                next="--features inception, or a classifier",
            )
        check_number("is", self.convention.num)
        score = self.collector.scores.score()
        kind = f"standard deviation over {NUM_SPLITS} splits shuffled by id"
        yield self._make_row("is", score, kind, estimate=self.collector.estimate_score())

    def kid(self) -> Iterator[MetricRow]:
        """Yield the kernel distance to every reference that has features."""
        ids = self.collector.ids[self.collector.kept_places]
        groups = self.collector.groups[self.collector.kept_places]
        for reference in self._require_features("kid"):
            real = self._move_real(reference)
            size = min(len(ids), len(real), SUBSET_SIZE)
            score, estimate = estimate_kernel_distance(
                self.collector.kept, real, ids=ids, ids_ref=reference.ids, groups=groups
            )
            kind = f"standard deviation over {NUM_SUBSETS} subsets of {size}"
            one = size == len(ids) == len(real)
            settings = {"subsets": 1 if one else NUM_SUBSETS, "subset_size": size, "degree": 3}
            told = (score.mean, None if one else score.std)
            yield self._make_row("kid", told, kind, reference, settings, estimate)

    def prdc(self) -> Iterator[MetricRow]:
        """Yield precision, recall, density and coverage against every reference."""
        for reference in self._require_features("prdc"):
            real = self._move_real(reference)
            check_number("prdc", min(len(real), len(self.collector.kept)))
            scores = prdc(self.collector.kept, real, k=PRDC_K, k_density=PRDC_K_DENSITY)
            if scores.alike:
                self.remarks.append(
                    f"density and coverage: {scores.alike} of {len(real)} images of "
                    f"{reference.name} equal their {PRDC_K_DENSITY} nearest ones, and no sample "
                    "can be closer than that: these images count as not covered"
                )
            for name, score in zip(PRDC._fields, scores[:4], strict=False):
                k = PRDC_K if name in ("precision", "recall") else PRDC_K_DENSITY
                settings = {"k": k, "samples": len(self.collector.kept), "real": len(real)}
                kind = "standard error over images, neighbourhoods held"
                yield self._make_row(name, score, kind, reference, settings)

    def accuracy(self) -> Iterator[MetricRow]:
        """Yield the share of samples that the judge calls by their label (top 1)."""
        score = self.collector.accuracy()
        if score is None or not self.judge_knows_labels:
            raise unknown_classes_error(self.convention.extractor)
        kind, estimate = "binomial standard error", self.collector.estimate_accuracy()
        yield self._make_row("accuracy", score, kind, estimate=estimate)

    def _require_features(self, metric: str) -> list[Reference]:
        found = [reference for reference in self.references if reference.features is not None]
        if not found:
            raise no_images_error(
                metric, ", ".join(reference.name for reference in self.references)
            )
        return found

    def _move_real(self, reference: Reference) -> torch.Tensor:
        assert reference.features is not None
        return torch.from_numpy(np.ascontiguousarray(reference.features)).to(
            self.collector.kept.device
        )

    def _make_distance_row(
        self, metric: str, estimate: Estimate, reference: Reference | None = None
    ) -> MetricRow:
        """Return a row whose value is not a mean: its error, and less its bias, by jackknife."""
        kind = f"jackknife standard error over {len(self.collector.parts)} groups, given how many "
        kind += "images a class has"
        told = estimate.value, estimate.error
        row = self._make_row(metric, told, kind, reference, estimate=estimate)
        return replace(row, corrected=estimate.corrected)

    def _make_row(
        self,
        metric: str,
        told: tuple[float, float | None],
        kind: str,
        reference: Reference | None = None,
        settings: dict[str, int] | None = None,
        estimate: Estimate | None = None,
    ) -> MetricRow:
        """Return a row. told: its value and uncertainty. kind: what the uncertainty is.

        estimate: the value with what it is without some groups, None where that is not known.
        """
        value, uncertainty = told
        known = estimate or Estimate(value)
        return MetricRow(
            metric=metric,
            value=value,
            convention=self.convention,
            uncertainty=uncertainty,
            uncertainty_of=kind if uncertainty is not None else "",
            without=known.without,
            without_two=known.without_two,
            groups=self.collector.mark if known.without else "",
            reference=reference.name if reference else "",
            reference_num=reference.num if reference else None,
            reference_digest=reference.digest if reference else "",
            settings=dict(settings or {}),
        )


def list_notes(
    metrics: tuple[str, ...],
    convention: Convention,
    extractor: FeatureExtractor,
    references: list[Reference],
) -> Iterator[str]:
    """Yield what a reader of the numbers must know before comparing them with others."""
    num, D = convention.num, extractor.feature_dim
    judged = [metric for metric in metrics if metric in ("fid", "is")]
    if judged and num < FULL:
        which = "the number for model selection" if num >= SELECTION else f"{num}"
        yield (
            f"{' and '.join(judged)} from {format_count(num, 'sample')} ({which}; {FULL} is the "
            "convention): "
            "the fewer samples, the higher FID and the lower IS"
        )
    if "fid" in metrics and num <= D:
        yield (
            f"{format_count(num, 'sample')} in {D} dimensions: their covariance is singular, "
            "FID is far too high"
        )
    yield from _tell_extractor(judged, convention)
    for reference in references:
        if reference.num is None and "fid" in metrics:
            yield (
                f"{reference.name} does not say of how many images, which network and which "
                "resize its statistics are; they were taken as they are"
            )


def _tell_extractor(judged: list[str], convention: Convention) -> Iterator[str]:
    if not judged:
        return
    name = convention.extractor
    if not name.startswith("inception-"):
        yield f"judged by {name}: comparable with numbers of this judge alone, not with Inception's"
    elif name != "inception-legacy-tensorflow":
        yield (
            f"{name}: the numbers of the literature, the paper's among them, are of "
            "--mode legacy-tensorflow"
        )
