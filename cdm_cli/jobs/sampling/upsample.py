"""`cdm upsample`: a store to the next resolution, with a super-resolution stage.

Labels and ids are carried on, so that several stages chain; z_s that are kept are what the next
stage may be conditioned on. The same command typed again continues, and ends in the same bytes.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cdm_cli.cascade.conditioning import (
    check_s,
    check_same_process,
    draw_non_truncated,
    take_truncated,
)
from cdm_cli.cascade.generate import SampleInputs
from cdm_cli.config import ScheduleConfig
from cdm_cli.data.store import Store, open_store
from cdm_cli.diffusion.schedules import from_config
from cdm_cli.errors import UsageError, quote
from cdm_cli.jobs.runtime.identity import read_identity
from cdm_cli.jobs.runtime.session import Session, plan_session, start_job
from cdm_cli.jobs.sampling.blocks import select_samples
from cdm_cli.jobs.sampling.classes import describe_empty
from cdm_cli.jobs.sampling.cost import estimate_cost
from cdm_cli.jobs.sampling.defaults import fill_defaults, tell_applied
from cdm_cli.jobs.sampling.fill import SamplingResult, fill_store
from cdm_cli.jobs.sampling.fitting import find_fitting_stage, tell_stage
from cdm_cli.jobs.sampling.headers import Header
from cdm_cli.jobs.sampling.provenance import make_store_parent, spell_command
from cdm_cli.jobs.sampling.ready import check_output, make_stage_ready
from cdm_cli.jobs.sampling.schedule_file import choose_chain, tell_schedule
from cdm_cli.jobs.sampling.store_images import (
    ImageArrays,
    StoreImages,
    check_states,
    choose_part,
    choose_rows,
    tell_rows,
)
from cdm_cli.jobs.sampling.work import Work, choose_kept_times, list_facts
from cdm_cli.names import RUNS, Augment
from cdm_cli.options.sampling import UpsampleOptions
from cdm_cli.report import Report


@dataclass(frozen=True)
class Conditioner:
    """Makes z_s, s and labels, the inputs of a super-resolution stage, of low-resolution images."""

    header: Header
    lowres: ImageArrays
    s: int
    augment: Augment
    seed: int

    def make_inputs(self, places: range) -> SampleInputs:
        """Return the inputs of places within the chosen rows."""
        ids = torch.from_numpy(self.lowres.take_ids(places))
        y = torch.from_numpy(self.lowres.take_labels(places))
        if self.augment == "truncated" and self.s > 0:
            z_s = take_truncated(self.lowres.take_z_s(places, self.s))
        else:
            z_0 = self.lowres.take_images(places)
            z_s = draw_non_truncated(self.header.config, z_0, self.s, ids=ids, seed=self.seed)
        return SampleInputs(ids, y, z_s, torch.full_like(ids, self.s))


def run(options: UpsampleOptions, report: Report) -> SamplingResult:
    """Upsample options.lowres into options.out.

    Raises MismatchError where stage and store do not fit, MissingError for one that is not there
    or a store that is not finished, UsageError for an s that the stage does not know,
    WouldOverwriteError, StoppedError, DiskError, MemoryFloorError, and BadInputError for damaged
    files or samples that are not finite; all that headers show is found before weights are loaded.
    """
    return start_job(run_in, options, options.compute, report)


def run_in(options: UpsampleOptions, session: Session) -> SamplingResult:
    """Upsample as one process of a job: plan, load the stage, fill the store."""
    with ExitStack() as stack:
        store, work = session.decide(
            lambda: _open_and_plan(options, stack), lambda planned: list_facts(planned[1])
        )
        _tell_choices(options, store, work, session.report)
        ready = make_stage_ready(work, options.out, session)
        tell_unseen_classes(work, choose_part(store, options.split)[1].labels, session.report)
        return fill_store(work, ready, options.out, session)


def plan(options: UpsampleOptions, report: Report) -> dict[str, object]:
    """Return what `run` would do and cost, checked as it checks; nothing is loaded or written."""
    with ExitStack() as stack:
        store, work = _open_and_plan(options, stack)
        _tell_choices(options, store, work, report)
        check_output(work, options.out, plan_session(options.compute, report))
    return {
        "stage": str(work.header.directory),
        "out": str(options.out),
        **{name: work.fields[name] for name in ("s", "augment")},
        **estimate_cost(
            work.header.config, work.chain, len(work.samples), options.compute, work.keep
        ),
    }


def _open_and_plan(options: UpsampleOptions, stack: ExitStack) -> tuple[Store, Work]:
    """Open the store that is upsampled, and decide what is made of it; the stack closes it."""
    store = stack.enter_context(open_store(options.lowres))
    work = plan_work(options, store, use_applied=True)
    _check_is_not_input(options)
    return store, work


def _tell_choices(options: UpsampleOptions, store: Store, work: Work, report: Report) -> None:
    """Say which split, stage, settings and schedule are taken where no flag names them."""
    tell_rows(store, options.split, options.num, report)
    tell_stage(options.model, work.header, report)
    tell_settings(options, work, report)


def tell_settings(options: UpsampleOptions, work: Work, report: Report) -> None:
    """Say what was applied to the stage, and which schedule is taken, where no flag says so."""
    tell_applied(options, work.header, report)
    tell_schedule(work.header, work.sampling, [work.fields["s"]], report)


def tell_unseen_classes(work: Work, labels: np.ndarray, report: Report) -> None:
    """Say of which classes, among those to be enlarged, the stage has seen no image."""
    if not work.header.config.model.num_classes:
        return
    unseen = np.intersect1d(work.header.empty, labels).astype(int).tolist()
    if unseen:
        told = describe_empty(work.classes, unseen)
        report.say(f"upsample: {work.header.directory} was trained with {told}")


def _check_is_not_input(options: UpsampleOptions) -> None:
    out, lowres = options.out, options.lowres
    if out.resolve() == lowres.resolve():
        free = lowres.with_stem(f"{lowres.stem}-upsampled")
        raise UsageError(
            f"-o {out}: this is the store that is upsampled",
            kept="it is untouched",
            next=f"-o {quote(free)}",
        )


def plan_work(options: UpsampleOptions, store: Store, *, use_applied: bool = False) -> Work:
    """Decide all that headers and flags decide. The store stays open while the work is done.

    use_applied: whether the stage's applied default fills in what no flag says. Raises what `run`
    raises of headers and flags.
    """
    split, part = choose_part(store, options.split)
    header = find_fitting_stage(options.model, Path(RUNS), store, part)
    options = fill_defaults(options, header, header.default if use_applied else None)
    s = check_s(header.config, options.s, options.augment)
    augment: Augment = options.augment or "non-truncated"
    keep = choose_kept_times(options.keep_s)
    chain = choose_chain(header, options.sampling, keep)
    if augment == "truncated":
        check_states(store, part, s)
        check_same_process(header.conditioning, read_process(store), [s], store.path)
    store.require_finished()
    rows = choose_rows(store, part, options.num)
    samples = select_samples(len(rows), options.part)
    lowres = StoreImages(part, header.conditioning.resolution, rows[samples.start : samples.stop])
    conditioner = Conditioner(header, lowres, s, augment, options.sampling.seed)
    return Work(
        command="upsample",
        equivalent_command=spell_command("upsample", options),
        sampling=options.sampling,
        header=header,
        chain=chain,
        num=len(rows),
        samples=samples,
        make_inputs=conditioner.make_inputs,
        classes=tuple(store.classes),
        fields={"lowres": store.digest, "split": split, "s": s, "augment": augment},
        parents=(make_store_parent(store),),
        keep=keep,
    )


def read_process(store: Store) -> list[float]:
    """Return alpha_bar of the process that made a store of samples; [] for other stores."""
    process = read_identity(store.provenance).get("process")
    if process is None:
        return []
    return from_config(ScheduleConfig.model_validate(process)).alpha_bar.tolist()
