"""`cdm sample`: low-resolution images from a base stage, and their z_s where they are wanted.

The same command typed again continues, and ends in the same bytes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cdm_cli.cascade.generate import Samples
from cdm_cli.errors import UsageError
from cdm_cli.jobs.runtime.session import Session, plan_session, start_job
from cdm_cli.jobs.sampling.begun_before import as_begun
from cdm_cli.jobs.sampling.blocks import rows_of_part
from cdm_cli.jobs.sampling.classes import labels_of, parse_classes, sample_count, without_images
from cdm_cli.jobs.sampling.cost import cost
from cdm_cli.jobs.sampling.headers import Header, base_stage
from cdm_cli.jobs.sampling.make import (
    Made,
    Work,
    check_output,
    facts_of,
    make_ready,
    produce,
    times_to_keep,
)
from cdm_cli.jobs.sampling.provenance import command_line
from cdm_cli.jobs.sampling.schedule_file import chain_for, tell_schedule
from cdm_cli.names import RUNS
from cdm_cli.options.sampling import SampleOptions
from cdm_cli.report import Report

UNLABELLED = "unlabelled"  # the only class of an unconditional stage


def run(options: SampleOptions, report: Report) -> Made:
    """Sample into options.out.

    Raises UsageError for classes or times that do not exist, MissingError without the stage,
    WouldOverwriteError where out was made by another command, StoppedError, DiskError.
    """
    return start_job(run_in, options, options.compute, report)


def run_in(options: SampleOptions, session: Session) -> Made:
    """Sample as one process of a job."""
    work = session.decide(
        lambda: as_begun(plan_work(options), options.out, session.report), facts_of
    )
    if options.classes is None and work.header.empty and len(work.classes) > 1:
        session.report.say(f"sample: left out {without_images(work.classes, work.header.empty)}")
    tell_schedule(work.header, options.sampling, [], session.report)
    ready = make_ready(work, options.out, session)
    return produce(work, ready, options.out, session)


def plan(options: SampleOptions, report: Report) -> dict[str, object]:
    """Return what `run` would do and cost, checked as it checks; nothing is loaded or written."""
    work = as_begun(plan_work(options), options.out, report)
    check_output(work, options.out, plan_session(options.compute, report))
    tell_schedule(work.header, options.sampling, [], report)
    return {
        "stage": str(work.header.directory),
        "out": str(options.out),
        "classes": len(work.fields["classes"]),
        **cost(work.header.config, work.chain, len(work.rows), options.compute, work.keep),
    }


def plan_work(options: SampleOptions) -> Work:
    """Decide all that headers and flags decide."""
    return work_of(base_stage(options.stage, Path(RUNS)), options)


def work_of(header: Header, options: SampleOptions) -> Work:
    """Decide all that is still open once the stage is known."""
    conditional = header.config.model.num_classes > 0
    if options.classes is not None and not conditional:
        raise UsageError(
            f"--classes {options.classes}: {header.directory} was trained without classes",
            next="leave out --classes",
        )
    names = header.classes if conditional else (UNLABELLED,)
    classes = parse_classes(options.classes, names, header.empty if conditional else ())
    num = sample_count(options.num, options.per_class, len(classes))
    keep = times_to_keep(options.keep_s)
    rows = rows_of_part(num, options.part)
    return Work(
        command="sample",
        typed=command_line("sample", options),
        sampling=options.sampling,
        header=header,
        chain=chain_for(header, options.sampling, keep),
        num=num,
        rows=rows,
        inputs=lambda places: samples_of_classes(rows[places.start : places.stop], classes),
        classes=names,
        fields={"classes": list(classes)},
        keep=keep,
    )


def samples_of_classes(ids: range, classes: Sequence[int]) -> Samples:
    """Return the ids and labels of a base stage's samples."""
    numbers = np.arange(ids.start, ids.stop)
    return Samples(torch.from_numpy(numbers), torch.from_numpy(labels_of(numbers, classes)))
