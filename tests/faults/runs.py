"""The jobs themselves, run in the current directory; each returns how much work it found to do."""

import contextlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from cdm_cli.jobs.runtime.same_store import resume_or_create
from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.options.cas import CasOptions
from cdm_cli.options.files import (
    DemoOptions,
    ExportOptions,
    GridOptions,
    ImportOptions,
    MergeOptions,
    PrepareOptions,
)
from cdm_cli.options.judging import CurveOptions, EvalOptions, FeatureOptions, TuneOptions
from cdm_cli.options.sampling import Compute, SampleOptions, UpsampleOptions
from cdm_cli.options.sweeping import SweepOptions, SweepSOptions
from cdm_cli.options.training import TrainOptions
from cdm_cli.options.workspace import DefaultsOptions, ReportOptions
from tests.asking import as_typed
from tests.data.stores import fill, samples_spec
from tests.faults.sketching import sketch

CPU = Compute(device="cpu", batch_size=2)
TRAINING = (
    "model.base_channels=8", "model.channel_mult=[1]", "model.num_heads=1",
    "model.attention_resolutions=[]", "schedule.T=20", "sampling.steps=4", "training.keep=1",
    "training.save_every=2", "training.log_every=1", "training.grid_every=0",
)  # fmt: skip


@contextlib.contextmanager
def settled() -> Generator[None]:
    """Make blocks of two samples, so that small jobs have several."""
    from cdm_cli.jobs.sampling import blocks

    with changed(blocks, SMALLEST=2):
        yield


@contextlib.contextmanager
def changed(holder: Any, **values: Any) -> Generator[None]:
    """Give names of a module or class other values for a while."""
    before = {name: getattr(holder, name) for name in values}
    for name, value in values.items():
        setattr(holder, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(holder, name, value)


class Counted:
    """A report that only adds up how much there is left to do, but for bars within another."""

    def __init__(self) -> None:
        self.total = self._depth = 0

    def say(self, line: str) -> None:
        """Hear nothing."""

    @contextlib.contextmanager
    def track(
        self, what: str, total: int, unit: str, done: int = 0
    ) -> Generator[Callable[[int, str], None]]:
        """Count what is announced."""
        self.total += 0 if self._depth else total - done
        self._depth += 1
        try:
            yield lambda count, note: None
        finally:
            self._depth -= 1


def _work(run: Callable[..., Any], options: Any) -> int:
    from matplotlib.figure import Figure  # which takes 0.3 s

    counted = Counted()
    with changed(Figure, savefig=sketch):
        run(options, counted)
    return counted.total


def create() -> int:
    with resume_or_create("store.h5", samples_spec(num=12, block_size=4)) as store:
        pending = store.parts[""].list_missing()
        fill(store)
    return len(pending)


def sample() -> int:
    from cdm_cli.jobs.sampling import sample as job

    return _work(job.run, as_typed(SampleOptions, num=6, keep_s=(5,), compute=CPU))


def upsample() -> int:
    from cdm_cli.jobs.sampling import upsample as job

    return _work(job.run, as_typed(UpsampleOptions, s=5, compute=CPU))


def train() -> int:
    from cdm_cli.jobs.training import train

    options = as_typed(TrainOptions, 
        name="base", preset="tiny-base8", steps=5, batch_size=4, overrides=TRAINING,
        compute=Compute(device="cpu"),
    )  # fmt: skip
    return _work(train.run, options)


def prepare() -> int:
    from cdm_cli.jobs.prepare import prepare

    (source,) = Path().glob("images.*")
    return _work(prepare.run, as_typed(PrepareOptions, src=source, resolutions=(4, 8), workers=1))


def sweep() -> int:
    return _swept(SweepSOptions, s=(0, 5))


def sweep_axes() -> int:
    return _swept(SweepOptions, axes=("s=5", "steps=1,2"))


def _swept(kind: type[SweepOptions], **asked: Any) -> int:
    from cdm_cli.jobs.sampling import blocks
    from cdm_cli.jobs.sweep import fill
    from cdm_cli.jobs.sweep import sweep as sweep_s

    compute = Compute(device="cpu", batch_size=8)
    judge = as_typed(FeatureOptions, features="judge", compute=compute)
    with (
        changed(blocks, SMALLEST=8),  # three blocks a point
        changed(fill, PATIENCE=0.0),  # one waits for another, within which it was typed
    ):
        return _work(sweep_s.run, as_typed(kind, judge=judge, **asked))


RACED = (0, 3, 5)


def race() -> int:
    """Race in three rounds; the point at s = 3 is worse by every image, and is beaten."""
    from cdm_cli.jobs.sweep.race_judge import RaceJudge

    estimate = RaceJudge.estimate

    def far(self: Any, point: Any, num: int) -> Estimate:
        found, more = estimate(self, point, num), 1.0 * (point.s == 3)
        return Estimate(found.value + more, tuple(one + more for one in found.without))

    with changed(RaceJudge, estimate=far):
        return _raced(27 * len(RACED))


def race_with_pause() -> int:
    """Race in two rounds; after the first one the last point is paused, and stays so."""
    from cdm_cli.metrics import racing

    with changed(racing, go_on=lambda *_: [0, 1]):
        return _raced(21 * len(RACED))


def _raced(images: int) -> int:
    """Race for so many images; the numbers of a round are kept at its end.

    Before, they would come at moments of chance.
    """
    from cdm_cli.jobs.sweep import racers
    from cdm_cli.jobs.sweep import sweep as sweep_s
    from cdm_cli.jobs.sweep.judges import Bench
    from cdm_cli.metrics import racing

    settle = Bench.settle
    judge = as_typed(FeatureOptions, features="judge", compute=Compute(device="cpu", batch_size=8))
    asked = as_typed(SweepSOptions, s=RACED, judge=judge, race=True, budget_evals=images * 2)
    with (
        changed(racers, BLOCK=8, LEAST_JUDGED=9),  # whole rounds of three classes: 9 images a block
        changed(
            racing, FIRST=9, NOW=racing.Pattern((1 / 3, 2 / 3, 1.0), (0.2, 0.3), 0.5, wakes=True)
        ),
        changed(Bench, settle=lambda self, wait=False: settle(self, wait=True) if wait else None),
    ):
        return _work(sweep_s.run, asked)


def grid_of_race() -> int:
    """Make and judge what a race left out; each number is kept before anything follows it.

    Some points are complete from the start: their numbers would come at moments of chance.
    """
    from cdm_cli.jobs.sweep.judges import Bench

    settle = Bench.settle
    with changed(Bench, settle=lambda self, wait=True: settle(self, wait=True)):
        return _swept(SweepSOptions, s=RACED)


def tune() -> int:
    from cdm_cli.jobs.tune import begin, teacher
    from cdm_cli.jobs.tune import tune as tune_schedule

    judge = as_typed(FeatureOptions, features="judge", compute=Compute(device="cpu", batch_size=8))
    options = {"steps": (2,), "num": 24, "trials": 2, "judge": judge}
    with changed(begin, TRIES=4), changed(teacher, EVENLY=8):
        return _work(tune_schedule.run, as_typed(TuneOptions, **options))


def eval() -> int:
    from cdm_cli.jobs.judging import evaluate

    judge = as_typed(FeatureOptions, features="judge", compute=Compute(device="cpu", batch_size=8))
    options = as_typed(
        EvalOptions,
        metrics=("fid", "is"),
        stores=(Path("lowres.h5"),),
        judge=judge,
        out=Path("table.json"),
    )
    return _work(evaluate.run, options)


def merge() -> int:
    from cdm_cli.jobs.exchange import merge as job

    return _work(
        job.run, as_typed(MergeOptions, parts=(Path("p1.h5"), Path("p2.h5")), out=Path("all.h5"))
    )


def grid() -> int:
    from cdm_cli.jobs.pictures import grid as job

    return _work(job.run, as_typed(GridOptions, num=4))


def report() -> int:
    from cdm_cli.jobs.reporting import report as job

    return _work(job.run, as_typed(ReportOptions))


def defaults() -> int:
    from cdm_cli.jobs.sampling import defaults as job

    return _work(job.run, as_typed(DefaultsOptions, stage="sr", take=1))


def export() -> int:
    from cdm_cli.jobs.exchange import export as job

    return _work(job.run, as_typed(ExportOptions, out=Path("images")))


def export_npz() -> int:
    from cdm_cli.jobs.exchange import export as job

    return _work(job.run, as_typed(ExportOptions, out=Path("images.npz")))


def import_checkpoint() -> int:
    from cdm_cli.jobs.exchange import import_any

    flags = "--image_size 16 --diffusion_steps 1000", "rescale_learned_sigmas=True"
    options = {"src": Path("theirs.safetensors"), "out": Path("runs/theirs"), "flags": flags}
    return _work(import_any.run, as_typed(ImportOptions, **options))


def import_images() -> int:
    from cdm_cli.jobs.exchange import import_any

    return _work(
        import_any.run, as_typed(ImportOptions, src=Path("images.zip"), out=Path("theirs.h5"))
    )


def cas() -> int:
    from cdm_cli.jobs.cas import cas, wait
    from cdm_cli.jobs.cas import report as cas_report
    from cdm_cli.jobs.cas import training as cas_training

    options = as_typed(CasOptions, net="small", steps=2, batch_size=6, lr=0.1, compute=CPU)
    with (
        changed(cas_training, SAVE_SECONDS=0.0),  # after every step
        changed(wait, PATIENCE=0.0),  # for a job within which this one is called
        changed(cas_report, draw_plot=lambda *args: b"a plot"),  # takes longer than all the rest
    ):
        return _work(cas.run, options)


def select() -> int:
    from cdm_cli.jobs.training import train

    options = as_typed(TrainOptions, 
        name="base", preset="tiny-base8", steps=4, batch_size=4, select="fid", select_num=6,
        select_every=2, features="judge", overrides=(*TRAINING[:-1], "training.grid_every=2"),
        compute=Compute(device="cpu"),
    )  # fmt: skip
    return _work(train.run, options)


def curve() -> int:
    from cdm_cli.jobs.curve import curve

    judge = as_typed(FeatureOptions, features="judge", compute=Compute(device="cpu", batch_size=8))
    return _work(curve.run, as_typed(CurveOptions, num=6, judge=judge))


def demo() -> int:
    """Draw, enlarge and tell; what it runs in between are jobs of their own, and done."""
    from cdm_cli.jobs.demo import demo

    drawn = {"TRAIN_PER_CLASS": 1, "VAL_PER_CLASS": 1, "_run": lambda *args, **how: None}
    with changed(demo, **drawn):
        return _work(demo.run, DemoOptions())


def prune() -> int:
    """Remove what can be made again; nothing of it is work that is done twice."""
    from cdm_cli.jobs.workspace.prune import run
    from cdm_cli.options.workspace import PruneOptions

    run(PruneOptions(yes=True), Counted())
    return 0
