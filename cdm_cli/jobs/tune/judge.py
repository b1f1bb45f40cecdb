"""Judging one schedule: each batch is drawn, its features are added up, its images dropped."""

from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch

from cdm_cli.cascade.chain import Chain
from cdm_cli.errors import MismatchError
from cdm_cli.jobs.judging.images import from_arrays, gather
from cdm_cli.jobs.judging.panel import Panel, open_panel, state_convention
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.sampling.fill import Engine, Meter
from cdm_cli.jobs.sampling.numerics import (
    Numerics,
    check_same_numerics,
    choose_numerics,
)
from cdm_cli.jobs.sampling.ready import ReadyStage, load_fast_stage
from cdm_cli.jobs.tune.images import TrialImages
from cdm_cli.jobs.tune.log import LogHead
from cdm_cli.jobs.tune.plan import Search
from cdm_cli.metrics.collector import Collector
from cdm_cli.metrics.comparisons import tell_apart
from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.reference import Reference
from cdm_cli.metrics.table import Convention
from cdm_cli.names import LEAST_JUDGED
from cdm_cli.nets.memory import Halving
from cdm_cli.options.judging import TuneOptions

PREFERRED = "train"
FIRST = 4  # the first round has one in so many of the images


class Raced(NamedTuple):
    """FID of a schedule. first: of the first images alone, empty where all are judged at once.

    dropped: whether it was certain to be worse than the best on these; then fid is of these alone.
    """

    fid: float
    first: Estimate
    dropped: bool


@dataclass(frozen=True)
class Scorer:
    """A stage and a judge, loaded once, and the images that every trial starts from."""

    search: Search
    panel: Panel
    ready: ReadyStage
    reference: Reference
    seed: int

    def fid(self, chain: Chain, what: str) -> float:
        """Return the FID of the images that a chain makes.

        The same noise for every chain. Several processes share the images; all must call.
        Raises StoppedError when asked to stop, BadInputError for features that are not finite.
        """
        collector = self._judge(self.search.inputs.shown, chain, what)
        return collector.frechet(self.reference.gaussian, uncertain=False).value

    def judge_fresh(self, chain: Chain, what: str) -> Estimate:
        """Return the FID of images that chose no chain, with its leave-out values."""
        collector = self._judge(self.search.inputs.fresh, chain, what)
        return collector.frechet(self.reference.gaussian)

    def race(self, chain: Chain, best: Estimate | None, what: str) -> Raced:
        """Return the FID of a chain, judged on all images only if the first do not tell it worse.

        best: the first images' FID of the best chain so far. The comparison is paired, at a level
        of 5 %: what both owe to the images and their noise cancels.
        """
        shown = self.search.inputs.shown
        quarter = count_first_round(len(shown.ids))
        if quarter == len(shown.ids):
            return Raced(self.fid(chain, what), Estimate(0.0), False)
        start, rest = range(quarter), range(quarter, len(shown.ids))
        head = TrialImages(
            shown.make_inputs, shown.ids[:quarter], shown.labels[:quarter], shown.seed
        )
        whole = self._make_collector(shown)
        opening = self._make_collector(head)
        self._show(shown, start, chain, what, [opening, whole])
        self._gather(opening)
        first = opening.frechet(self.reference.gaussian, pairs=False)
        if best is not None and tell_apart(first, best) == "worse":
            return Raced(first.value, first, True)
        self._show(shown, rest, chain, what, [whole])
        self._gather(whole)
        return Raced(whole.frechet(self.reference.gaussian, uncertain=False).value, first, False)

    def _judge(self, drawn: TrialImages, chain: Chain, what: str) -> Collector:
        collector = self._make_collector(drawn)
        self._show(drawn, range(len(drawn.ids)), chain, what, [collector])
        self._gather(collector)
        return collector

    def _make_collector(self, drawn: TrialImages) -> Collector:
        dim = self.panel.judge.extractor.feature_dim
        device = self.panel.session.device
        return Collector.empty(drawn.ids, drawn.labels, dim, device=device, keep=0)

    def _show(
        self, drawn: TrialImages, places: range, chain: Chain, what: str,
        collectors: list[Collector],
    ) -> None:  # fmt: skip
        """Draw the images at some places, this process its share, and show them to the judge."""
        search, session = self.search, self.panel.session
        judge = Halving(self.panel.judge.extractor, session.device, session.report.say)
        engine = Engine(self.ready.stage, chain, drawn.seed, self.ready.numerics.batch_size)
        name = f"images/{search.header.config.model.resolution}"
        mine = np.array_split(np.arange(places.start, places.stop), session.world.size)
        mine = mine[session.world.rank]
        total = len(mine) * chain.evaluations
        with Stop() as stop, session.report.track(what, total, "evaluations") as advance:
            meter = Meter(advance, stop, len(mine), lambda: "every trial before this one is kept")
            for start in range(0, len(mine), engine.batch_size):
                here = mine[start : start + engine.batch_size]
                inputs = drawn.make_inputs(range(int(here[0]), int(here[-1]) + 1))
                images = torch.from_numpy(engine.make_block(inputs, meter)[name])
                features, _ = judge(images.permute(0, 3, 1, 2).to(session.device))
                for collector in collectors:
                    collector.add(here, features, None)

    def _gather(self, collector: Collector) -> None:
        what = f"{self.panel.judge.extractor.name} gives features"
        gather(
            collector, self.panel.session.world, what, kept="every trial before this one is kept"
        )


def count_first_round(num: int) -> int:
    """Return how many images are judged first: all, where a part of them would be too few."""
    return num // FIRST if num // FIRST >= LEAST_JUDGED else num


def open_scorer(
    options: TuneOptions, search: Search, session: Session, head: LogHead | None
) -> Scorer:
    """Load the judge, then the stage with the numerics of the trials that are there."""
    model = search.header.config.model
    if options.num < session.world.size:
        raise MismatchError(
            f"--num {options.num}: fewer images than the {session.world.size} processes",
            next="fewer processes",
        )
    panel = open_panel(options.judge, model.resolution, session, features=False)
    chosen = choose_trial_numerics(options, search, head, session)
    stage = load_fast_stage(search.header, options.sampling, chosen, session)
    named = {reference.name: reference for reference in panel.references}
    reference = named.get(PREFERRED, panel.references[0])
    return Scorer(search, panel, ReadyStage(stage, chosen), reference, options.sampling.seed)


def choose_trial_numerics(
    options: TuneOptions, search: Search, head: LogHead | None, session: Session
) -> Numerics:
    """Return how the trials are computed; raise WouldOverwriteError where those there were not."""
    before = head.numerics if head else None
    evaluations = (1 + search.trials) * options.num * sum(search.steps)
    most = count_first_round(options.num) if search.method == "free" else None
    chosen = choose_numerics(search.header.config, session, evaluations, before, most)
    if before:
        check_same_numerics(before, chosen, options.out)
    return chosen


def make_log_head(scorer: Scorer) -> LogHead:
    """Return the first line of the log."""
    stage = scorer.ready.stage
    return LogHead(
        identity=scorer.search.identity,
        stage=stage.name,
        stage_digest=stage.digest,
        reference=scorer.reference.name,
        convention=asdict(state_trial_convention(scorer)),
        numerics=asdict(scorer.ready.numerics),
        gains=True,
    )


def state_trial_convention(scorer: Scorer) -> Convention:
    """Return how the images of a trial become a number."""
    search = scorer.search
    model, shown = search.header.config.model, search.inputs.shown
    shape = (len(shown.ids), model.resolution, model.resolution, model.channels)
    images = np.broadcast_to(np.uint8(0), shape)
    drawn = from_arrays("trial", images, shown.labels, search.inputs.classes)
    return state_convention(drawn, scorer.panel.judge, scorer.seed)
