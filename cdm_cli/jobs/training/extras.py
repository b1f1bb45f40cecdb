"""What happens between two steps besides training: pictures, accuracy, the choice of the best.

Which of these a run has is decided from headers before it begins; they are built once it has its
weights. An extra reads the averaged weights and touches nothing that a step depends on, so a run
ends in the same bytes with extras and without.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from cdm_cli.config import ClassifierConfig
from cdm_cli.data.store import Store
from cdm_cli.errors import UsageError
from cdm_cli.jobs.judging.images import ImageSet
from cdm_cli.jobs.judging.judge import Judge
from cdm_cli.jobs.sampling.headers import Header
from cdm_cli.jobs.sampling.numerics import choose_numerics
from cdm_cli.jobs.sampling.probe import Probe
from cdm_cli.jobs.training.accuracy import ACCURACY, Accuracy, find_val_images
from cdm_cli.jobs.training.grid import GridLayout, SampleGrid, plan_layout
from cdm_cli.jobs.training.log import Metrics, read_metrics
from cdm_cli.jobs.training.plan import describe_data
from cdm_cli.jobs.training.plot import LossPlot
from cdm_cli.jobs.training.select import Selection, open_selection_panel, plan_selection
from cdm_cli.jobs.training.step import Trainer
from cdm_cli.options.training import TrainOptions
from cdm_cli.plans import Plan
from cdm_cli.report import Report
from cdm_cli.units import format_count


class Extra(Protocol):
    """Something that is done every so many steps, and after the last one; 0 steps: never."""

    @property
    def every(self) -> int:
        """Steps from one time to the next."""
        ...

    def is_missing(self, step: int) -> bool:
        """Whether what it makes at a step is not there; asked in the first process only."""
        ...

    def __call__(self, step: int, metrics: Metrics | None) -> None:
        """Do it after a step, in every process; metrics is None in all but the first one.

        Writes nothing if the run is asked to stop meanwhile: it is done when the run resumes.
        """
        ...


def is_due(extra: Extra, step: int, last: int) -> bool:
    """Say whether an extra is due after a step of a run that ends with step `last`."""
    return extra.every > 0 and step > 0 and (step % extra.every == 0 or step == last)


@dataclass(frozen=True)
class ExtrasPlan:
    """The extras of a run, as headers and flags decide them; None for what it does not do.

    layout: what its sample grids show. probe: the samples that --select judges. images: those of
    val, on which a classifier is tested.
    """

    layout: GridLayout | None = None
    probe: Probe | None = None
    images: ImageSet | None = None


def plan_extras(
    options: TrainOptions, plan: Plan, store: Store, stack: ExitStack, report: Report
) -> ExtrasPlan:
    """Decide from headers and flags which extras a run has.

    A diffusion stage draws grids of samples, and with --select samples that FID judges; a
    classifier is tested on val. Both plot their losses. stack: keeps the store of --select-lowres
    open while the run lasts. Raises UsageError, MissingError or MismatchError for a --select,
    --features or training.sample_s that does not fit the stage or its data.
    """
    stage, training = plan.stage, plan.training
    if isinstance(stage, ClassifierConfig):
        if options.select is not None:
            raise UsageError(
                f"--select {options.select}: a classifier draws no samples",
                next="leave it out; accuracy on val is logged at every checkpoint",
            )
        return ExtrasPlan(images=find_val_images(store, stage.resolution))
    directory = options.directory
    header = Header(directory, stage, tuple(store.classes), describe_data(store).without_images)
    layout = plan_layout(header, store, training)
    if not options.select:
        return ExtrasPlan(layout)
    return ExtrasPlan(layout, plan_selection(options, header, store, training, stack, report))


def build_extras(
    planned: ExtrasPlan, options: TrainOptions, trainer: Trainer, judge: Judge | None,
    find_stop: Callable[[], str],
) -> tuple[Extra, ...]:  # fmt: skip
    """Build the extras of a run once it has its weights, in the order in which they are done.

    Grid and plot are due every grid_every steps, --select, between them, every select_every;
    accuracy and plot of a classifier every save_every; all after the last step, too, but for those
    of which 0 says never.
    judge: who scores --select, None without. find_stop: returns what asks the run to stop, "" for
    nothing. Raises what reading the real images raises, and WouldOverwriteError where
    best.safetensors was chosen by other rules.
    """
    directory, training, leads = options.directory, trainer.training, trainer.world.leads
    if planned.layout is None:
        there, images = read_metrics(directory, ACCURACY), planned.images
        judge_it = (Accuracy(images, trainer, there, find_stop),) if images else ()
        return (*judge_it, LossPlot(directory, training.save_every, leads=leads))
    plot = LossPlot(directory, training.grid_every, leads=leads)
    grid = SampleGrid(directory, planned.layout, trainer, find_stop)
    if planned.probe is None or judge is None:
        return (grid, plot)
    session, probe = trainer.session, planned.probe
    chosen = choose_numerics(probe.config, session, probe.evaluations)
    settings = probe.list_settings().items()
    told = ", ".join(f"{name} {value}" for name, value in settings if value != "")
    session.report.say(f"--select fid every {format_count(options.select_every, 'step')}: {told}")
    panel = open_selection_panel(judge, options.data, probe, session)
    return (grid, Selection(options, directory, trainer, probe, panel, chosen, find_stop), plot)


def count_judgements(planned: ExtrasPlan, options: TrainOptions, steps: int) -> dict[str, int]:
    """Return how often --select judges, and the evaluations of all its samples; {} without it."""
    if planned.probe is None:
        return {}
    times = -(-steps // options.select_every)
    return {"judgements": times, "judging_evaluations": times * planned.probe.evaluations}
