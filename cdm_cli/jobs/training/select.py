"""`cdm train --select fid`: the averaged weights with the best score become best.safetensors.

Section 4 of the paper stops early by the FID of 10,000 samples against the training images.
Every so many steps samples are drawn with the averaged weights, judged, and the weights kept
where no earlier ones scored better; `best.py` has their score.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch

from cdm_cli.cascade.snapshot import save_best
from cdm_cli.cascade.stage import Stage
from cdm_cli.data.store import Store
from cdm_cli.errors import NotFiniteError
from cdm_cli.jobs.judging.header import identify_judge
from cdm_cli.jobs.judging.judge import Judge, open_judge
from cdm_cli.jobs.judging.panel import Panel
from cdm_cli.jobs.judging.probe_score import (
    fill_in_steps,
    identify_extractor,
    identify_judgement,
    judge_probe,
)
from cdm_cli.jobs.judging.references import find_references
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.sampling.headers import Header
from cdm_cli.jobs.sampling.judged_on import make_probe, open_generated
from cdm_cli.jobs.sampling.numerics import Numerics
from cdm_cli.jobs.sampling.probe import Probe, build_averaged, check_shares, draw_probe
from cdm_cli.jobs.sampling.ready import tell_compiling
from cdm_cli.jobs.training.best import Best, check_same_judgement, read_best
from cdm_cli.jobs.training.log import Metrics, read_metrics
from cdm_cli.jobs.training.objective import StageObjective
from cdm_cli.jobs.training.step import Trainer
from cdm_cli.metrics.table import MetricRow
from cdm_cli.options.judging import FeatureOptions
from cdm_cli.options.sampling import Sampling
from cdm_cli.options.training import TrainOptions
from cdm_cli.plans import TrainingConfig
from cdm_cli.report import Report


def plan_selection(
    options: TrainOptions, header: Header, store: Store, training: TrainingConfig,
    stack: ExitStack, report: Report,
) -> Probe:  # fmt: skip
    """Check all of --select that headers decide, and fix the samples that will be judged.

    The stack keeps --select-lowres open. Raises UsageError for more samples than there are images
    to enlarge; MissingError and MismatchError for a judge that is none, or images that do not fit;
    WouldOverwriteError where best.safetensors was chosen by other samples.
    """
    identify_judge(choose_features(options), options.runs)
    sampling = fill_in_steps(header.config, Sampling(seed=training.seed))
    flags = "--select-num", "training.sample_s"
    num, s = options.select_num, training.sample_s
    generated = open_generated(options.select_lowres, header, stack, "--select-lowres", num, report)
    probe = make_probe(header, store, num, s, sampling, flags, generated)
    check_same_judgement(read_best(header.directory), probe.identity, header.directory)
    return probe


def open_selection_judge(options: TrainOptions, probe: Probe, device: torch.device) -> Judge:
    """Load who judges the samples.

    Raises what `open_judge` raises, WouldOverwriteError where best.safetensors had another judge.
    """
    judge, directory = open_judge(choose_features(options), device, options.runs), options.directory
    known = {**probe.identity, **identify_extractor(judge.extractor)}
    check_same_judgement(read_best(directory), known, directory)
    return judge


def choose_features(options: TrainOptions) -> FeatureOptions:
    """Return the extractor that judges --select, and the store of real images: that of --data."""
    name = options.features or FeatureOptions().features
    return FeatureOptions(features=name, ref=options.data, compute=options.compute)


def open_selection_panel(judge: Judge, data: Path, probe: Probe, session: Session) -> Panel:
    """Find or compute the statistics of the real images, once for all steps that are judged."""
    resolution = probe.config.model.resolution
    found = find_references(data, resolution, judge.extractor, session, features=False)
    return Panel(judge, found, session)


class Selection:
    """Judges the averaged weights of a step; every process draws its share of the samples.

    It keeps them in best.safetensors where the FID against the first reference is strictly the
    lowest so far, certain or not.
    """

    def __init__(
        self, options: TrainOptions, directory: Path, trainer: Trainer, probe: Probe,
        panel: Panel, numerics: Numerics, find_stop: Callable[[], str],
    ) -> None:  # fmt: skip
        check_shares(probe, trainer.world)
        self.every = options.select_every
        self._directory, self._trainer, self._find_stop = directory, trainer, find_stop
        self._probe, self._panel, self._numerics = probe, panel, numerics
        self._score = f"fid_{panel.references[0].name}"
        self._there = read_metrics(directory, self._score)
        self._stage: Stage | None = None
        self._judged_by = identify_judgement(probe, panel)
        self.best = read_best(directory)
        check_same_judgement(self.best, self._judged_by, directory)

    def is_missing(self, step: int) -> bool:
        """Whether `metrics.jsonl` has no score of a step."""
        return step not in self._there

    def __call__(self, step: int, metrics: Metrics | None) -> None:
        """Draw samples, log their FIDs, and save the weights if the first FID is the lowest so far.

        Writes nothing if the run is asked to stop while samples are drawn. Samples that are not
        finite have no score: that is reported, and training goes on.
        """
        probe, session, stage = self._probe, self._trainer.session, self._update_stage()
        size = self._numerics.batch_size
        try:
            images = draw_probe(probe, stage, size, session, find_stop=self._find_stop)
        except NotFiniteError as error:
            session.report.say(f"step {step} is not judged: {error.what}")
            return
        finally:
            stage.release()  # training needs the room
        if images is None:
            return
        table = judge_probe(self._panel, probe, images, f"step {step}")
        scores = {
            f"fid_{found.name}": table.value("fid", found.name) for found in self._panel.references
        }
        self._keep(step, table.row("fid", self._panel.references[0].name))
        if metrics is not None:
            metrics.write({"step": step, **scores})

    def _update_stage(self) -> Stage:
        """Return the stage with the weights of now; it is built, and compiled, once."""
        objective, ema = self._trainer.objective, self._trainer.ema
        assert isinstance(objective, StageObjective)
        if self._stage is None:
            if self._numerics.compiled:
                tell_compiling(self._trainer.session.report)
            self._stage = build_averaged(objective.stage, ema, compiled=self._numerics.compiled)
        ema.copy_to(self._stage.net)
        return self._stage

    def _keep(self, step: int, row: MetricRow) -> None:
        """Keep the weights of the lowest score, and say how surely it is lower."""
        num, before, report = self._probe.num, self.best, self._trainer.session.report
        told = f"step {step}: FID {row.value:.4g} of {num} samples against {row.reference}"
        if before is not None:
            beside = (
                f"beside {before.value:.4g} of step {before.step}: {before.describe_beside(row)}"
            )
            told = f"{told}, {beside}"
            if not row.value < before.value:
                report.say(f"{told}; step {before.step} stays the lowest")
                return
        self.best = Best.of(step, row, self._judged_by)
        if self._trainer.world.leads:
            save_best(self._directory, self._trainer.ema.state_dict(), step, self.best.text())
        report.say(f"{told}; its weights are kept, the lowest so far")
