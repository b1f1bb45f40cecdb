"""The FID of a probe's samples: what `train --select` and `eval checkpoints` share."""

from dataclasses import replace
from typing import Any

import numpy as np

from cdm_cli.cascade.chain import ENOUGH_STEPS
from cdm_cli.config import StageConfig
from cdm_cli.jobs.judging.images import from_arrays
from cdm_cli.jobs.judging.panel import Panel, measure
from cdm_cli.jobs.sampling.probe import Probe
from cdm_cli.metrics.features import FeatureExtractor
from cdm_cli.metrics.table import MetricTable
from cdm_cli.options.sampling import Sampling

OF_THE_JUDGE = ("against", "reference_digest", "extractor", "extractor_digest", "resize")
"""What identifies a score besides the samples of the probe."""


def fill_in_steps(config: StageConfig, sampling: Sampling) -> Sampling:
    """Return how samples are made that are judged, with 250 steps at most where none are given.

    Steps or a schedule that are asked for, and the default of the stage, stay. To sample with all
    T = 4000 steps would cost more than training.
    """
    if sampling.steps is not None or sampling.schedule or config.sampling.steps:
        return sampling
    return replace(sampling, steps=min(config.schedule.T, ENOUGH_STEPS))


def judge_probe(panel: Panel, probe: Probe, images: np.ndarray, name: str) -> MetricTable:
    """Return FID, against every reference, of what `draw_probe` gave, uint8 [num, H, W, C]."""
    found = from_arrays(name, images, probe.labels, probe.classes)
    return measure(panel, found, ("fid",), seed=probe.seed)


def identify_judgement(probe: Probe, panel: Panel) -> dict[str, Any]:
    """Return the identity of a score: all that it depends on besides the weights."""
    reference = panel.references[0]
    return {
        **probe.identity,
        "against": reference.name,
        "reference_digest": reference.digest,
        **identify_extractor(panel.judge.extractor),
    }


def identify_extractor(extractor: FeatureExtractor) -> dict[str, Any]:
    """Return what of the identity of a score is known before its reference is read."""
    return {
        "extractor": extractor.name,
        "extractor_digest": extractor.digest,
        "resize": extractor.resize,
    }
