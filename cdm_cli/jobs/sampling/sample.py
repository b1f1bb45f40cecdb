"""`cdm sample`: low-resolution images from a base stage, and their z_s where they are wanted.

The same command typed again continues, and ends in the same bytes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cdm_cli.cascade.generate import SampleInputs
from cdm_cli.errors import UsageError
from cdm_cli.jobs.runtime.session import Session, plan_session, start_job
from cdm_cli.jobs.sampling.blocks import select_samples
from cdm_cli.jobs.sampling.classes import (
    assign_labels,
    count_samples,
    describe_empty,
    parse_classes,
    reduce_counts,
)
from cdm_cli.jobs.sampling.cost import estimate_cost
from cdm_cli.jobs.sampling.fill import SamplingResult, fill_store
from cdm_cli.jobs.sampling.fitting import find_base_stage
from cdm_cli.jobs.sampling.headers import Header
from cdm_cli.jobs.sampling.like import count_like
from cdm_cli.jobs.sampling.provenance import spell_command
from cdm_cli.jobs.sampling.ready import check_output, make_stage_ready
from cdm_cli.jobs.sampling.schedule_file import choose_chain, tell_schedule
from cdm_cli.jobs.sampling.work import Work, choose_kept_times, keep_old_chain, list_facts
from cdm_cli.names import RUNS
from cdm_cli.options.sampling import SampleOptions
from cdm_cli.report import Report

UNLABELLED = "unlabelled"  # the only class of an unconditional stage


def run(options: SampleOptions, report: Report) -> SamplingResult:
    """Sample into options.out.

    Raises UsageError for classes or times that do not exist, MissingError without the stage,
    WouldOverwriteError where out was made by another command, StoppedError, DiskError,
    MemoryFloorError, and BadInputError for damaged files or samples that are not finite.
    """
    return start_job(run_in, options, options.compute, report)


def run_in(options: SampleOptions, session: Session) -> SamplingResult:
    """Sample as one process of a job: plan, load the stage, fill the store."""
    work = session.decide(
        lambda: keep_old_chain(plan_work(options), options.out, session.report), list_facts
    )
    tell_choices(options, work, session.report)
    ready = make_stage_ready(work, options.out, session)
    return fill_store(work, ready, options.out, session)


def plan(options: SampleOptions, report: Report) -> dict[str, object]:
    """Return what `run` would do and cost, checked as it checks; nothing is loaded or written."""
    work = keep_old_chain(plan_work(options), options.out, report)
    check_output(work, options.out, plan_session(options.compute, report))
    tell_choices(options, work, report)
    return {
        "stage": str(work.header.directory),
        "out": str(options.out),
        "classes": len(work.fields["classes"]),
        **estimate_cost(
            work.header.config, work.chain, len(work.samples), options.compute, work.keep
        ),
    }


def tell_choices(options: SampleOptions, work: Work, report: Report) -> None:
    """Say which classes are left out, and which schedule is taken, where no flag says so."""
    if options.classes is None and work.header.empty and len(work.classes) > 1:
        report.say(f"sample: left out {describe_empty(work.classes, work.header.empty)}")
    tell_schedule(work.header, options.sampling, [], report)


def plan_work(options: SampleOptions) -> Work:
    """Decide all that headers and flags decide.

    Raises what `find_base_stage` and `make_work` raise.
    """
    return make_work(find_base_stage(options.stage, Path(RUNS)), options)


def make_work(header: Header, options: SampleOptions) -> Work:
    """Decide all that is still open once the stage is known.

    Raises UsageError for classes or times that do not exist, and for too many samples or parts.
    """
    names = header.classes if header.config.model.num_classes else (UNLABELLED,)
    classes, counts, num = _choose_classes(header, options, names)
    keep = choose_kept_times(options.keep_s)
    samples = select_samples(num, options.part)
    return Work(
        command="sample",
        equivalent_command=spell_command("sample", options),
        sampling=options.sampling,
        header=header,
        chain=choose_chain(header, options.sampling, keep),
        num=num,
        samples=samples,
        make_inputs=lambda places: make_inputs(
            samples[places.start : places.stop], classes, counts
        ),
        classes=names,
        fields={"classes": list(classes), **({"counts": list(counts)} if counts else {})},
        keep=keep,
    )


def _choose_classes(
    header: Header, options: SampleOptions, names: Sequence[str]
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Return classes, their shares (none: all alike), and how many samples there will be."""
    conditional = header.config.model.num_classes > 0
    for flag, value in (("--classes", options.classes), ("--like", options.like)):
        if value is not None and not conditional:
            raise UsageError(
                f"{flag} {value}: {header.directory} was trained without classes",
                next=f"leave out {flag}",
            )
    classes = parse_classes(options.classes, names, header.empty if conditional else ())
    if options.like is None:
        return classes, (), count_samples(options.num, options.per_class, len(classes))
    classes, counts = count_like(options.like, header, classes)
    return classes, reduce_counts(counts), count_samples(options.num or sum(counts), None, 1)


def make_inputs(ids: range, classes: Sequence[int], counts: Sequence[int] = ()) -> SampleInputs:
    """Return the ids and labels of a base stage's samples."""
    numbers = np.arange(ids.start, ids.stop)
    labels = assign_labels(numbers, classes, counts)
    return SampleInputs(torch.from_numpy(numbers), torch.from_numpy(labels))
