"""Which stage a search is of, and which images judge its trials: decided from headers alone.

The images of a super-resolution stage are enlarged from a store, so those are the rows of it that
a search takes; a base stage draws samples of its classes. Other images, which judge no trial,
judge what is best in the end.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cdm_cli.cascade.conditioning import check_s
from cdm_cli.cascade.generate import SampleInputs
from cdm_cli.cascade.stage import trains_continuously
from cdm_cli.cascade.stagefile import find_stage
from cdm_cli.data.store import Part, Store, open_store
from cdm_cli.errors import MismatchError, MissingError, UsageError
from cdm_cli.jobs.sampling import sample, upsample
from cdm_cli.jobs.sampling.classes import assign_labels
from cdm_cli.jobs.sampling.fitting import find_fitting_stage
from cdm_cli.jobs.sampling.headers import Header, read_header
from cdm_cli.jobs.sampling.schedule_file import FreshBy
from cdm_cli.jobs.sampling.store_images import (
    RowIndices,
    StoreImages,
    choose_part,
    choose_rows,
    tell_rows,
)
from cdm_cli.jobs.sampling.work import MakeInputs
from cdm_cli.metrics.order import choose_balanced
from cdm_cli.names import LEAST_JUDGED, RUNS, Searching
from cdm_cli.options.judging import TuneOptions
from cdm_cli.report import Report


class TrialImages(NamedTuple):
    """Images that a judge is shown. ids, labels: int64 [num].

    make_inputs: makes the inputs of a stage for a range of places within these. seed: of their
    noise.
    """

    make_inputs: MakeInputs
    ids: np.ndarray
    labels: np.ndarray
    seed: int


class SearchInputs(NamedTuple):
    """A stage and the images that its schedules are judged by.

    shown: those of the trials. fresh: images that choose nothing, and fresh_by what sets them
    apart: other images, or the noise alone. fields: what decides them.
    """

    header: Header
    classes: tuple[str, ...]
    shown: TrialImages
    fresh: TrialImages
    fresh_by: FreshBy
    lowres: str
    fields: dict[str, Any]


def choose_images(
    options: TuneOptions, method: Searching, stack: ExitStack, report: Report
) -> tuple[SearchInputs, Store | None]:
    """Return the stage with the images, and the store they are enlarged from; a base has none.

    Raises UsageError, MissingError and MismatchError for what does not fit, MismatchError for
    linear schedules of a stage that was not trained for them.
    """
    if options.model is not None:
        header = read_header(find_stage(options.model, Path(RUNS)))
        if header.config.kind == "base":
            if method == "linear":
                _check_continuous(header)
            return _ask_base(options, header), None
    if not options.lowres.exists() and options.model is None:
        raise MissingError(
            f"{options.lowres} does not exist",
            next="cdm sample makes it; or --model with a base stage, which needs none",
        )
    store = stack.enter_context(open_store(options.lowres))
    header = find_fitting_stage(options.model, Path(RUNS), store, choose_part(store, None)[1])
    if method == "linear":
        _check_continuous(header)
    return _ask_sr(options, header, store, report), store


def _ask_sr(options: TuneOptions, header: Header, store: Store, report: Report) -> SearchInputs:
    """Return the images that choose_rows takes for the trials, and others as the fresh ones."""
    s, seed = check_s(header.config, options.s), options.sampling.seed
    name, part = choose_part(store, None)
    rows = choose_rows(store, part, options.num)
    tell_rows(store, None, options.num, report)

    def show_rows(rows: RowIndices, seed: int) -> TrialImages:
        lowres = StoreImages(part, header.conditioning.resolution, rows)
        conditioner = upsample.Conditioner(header, lowres, s, "non-truncated", seed)
        ids, labels = np.asarray(part.ids[rows]), np.asarray(part.labels[rows])
        return TrialImages(conditioner.make_inputs, ids, labels, seed)

    fields = {"lowres": store.digest, "split": name, "s": s, "augment": "non-truncated"}
    others = _choose_others(part, rows)
    fresh = show_rows(rows, (seed + 1) % 2**63) if others is None else show_rows(others, seed)
    by: FreshBy = "noise" if others is None else "images"
    shown, classes = show_rows(rows, seed), tuple(store.classes)
    return SearchInputs(header, classes, shown, fresh, by, store.path.name, fields)


def _ask_base(options: TuneOptions, header: Header) -> SearchInputs:
    """Return samples 0..num - 1 of all classes for the trials, num..2 num - 1 as the fresh ones."""
    if options.s is not None:
        raise UsageError(f"--s: {header.directory} is a base stage, which has no s",
                         next="leave out --s")  # fmt: skip
    conditional = header.config.model.num_classes > 0
    names = header.classes if conditional else (sample.UNLABELLED,)
    classes = header.shown if conditional else (0,)

    def show_samples(first: int) -> TrialImages:
        ids = np.arange(first, first + options.num)

        def make_inputs(places: range) -> SampleInputs:
            return sample.make_inputs(range(first + places.start, first + places.stop), classes)

        return TrialImages(make_inputs, ids, assign_labels(ids, classes), options.sampling.seed)

    fields = {"classes": list(classes)}
    return SearchInputs(
        header, names, show_samples(0), show_samples(options.num), "images", "", fields
    )


def _choose_others(part: Part, used: RowIndices) -> RowIndices | None:
    """Return as many rows of a part as were used, all of them others; None: there are too few."""
    rest = np.setdiff1d(np.arange(part.num), used)
    if len(rest) < LEAST_JUDGED:
        return None
    ids, labels = np.asarray(part.ids)[rest], np.asarray(part.labels)[rest]
    return rest[choose_balanced(ids, labels, min(len(used), len(rest)))]


def _check_continuous(header: Header) -> None:
    """Raise MismatchError for a stage that knows the noise levels of its own schedule only."""
    if trains_continuously(header.config):
        return
    raise MismatchError(
        f"{header.directory} was trained on the steps of one schedule, not on a continuum of noise "
        f"levels (time_input = {header.config.time_input}, loss = {header.config.loss}), so no "
        "linear schedule can be searched for it",
        kept="no output was made",
        next="cdm tune-schedule --search free; or train with --set "
        "time_input=sqrt_alpha_bar --set loss=simple --set variance=small",
    )
