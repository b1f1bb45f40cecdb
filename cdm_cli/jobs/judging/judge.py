"""Who judges: Inception, a classifier stage, or an extractor that some package installs."""

from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch

from cdm_cli.cascade.checkpoint import find_stage, load_stage
from cdm_cli.cascade.classifier import ClassifierStage
from cdm_cli.errors import BadInputError, MismatchError, MissingError
from cdm_cli.metrics.features import ClassifierExtractor, FeatureExtractor, InceptionExtractor
from cdm_cli.metrics.inception import FILES
from cdm_cli.names import RUNS
from cdm_cli.options.judging import FeatureOptions

ENTRY_POINTS = "cdm.features"


@dataclass(frozen=True)
class Judge:
    """A feature extractor; classes: what its probabilities mean, empty where not known."""

    extractor: FeatureExtractor
    classes: tuple[str, ...] = ()


def open_judge(options: FeatureOptions, device: torch.device, runs: Path = Path(RUNS)) -> Judge:
    """Load what `--features` names: "inception", a stage, a package's extractor, a weights file.

    Raises MissingError, BadInputError or MismatchError telling what to do instead.
    """
    name = options.features
    if name == "inception":
        return Judge(InceptionExtractor(options.mode, device))
    if Path(name).name == FILES[options.mode].name:
        return Judge(InceptionExtractor(options.mode, device, weights=Path(name)))
    if is_classifier_stage(options, runs):
        return _classifier(name, runs, device)
    return Judge(_load_installed(name, device))


def is_classifier_stage(options: FeatureOptions, runs: Path = Path(RUNS)) -> bool:
    """Say whether `--features` names a stage; raise MissingError where it names nothing."""
    name = options.features
    if name == "inception" or Path(name).name == FILES[options.mode].name:
        return False
    try:
        find_stage(name, runs)
    except MissingError:
        if not entry_points(group=ENTRY_POINTS, name=name):
            raise
        return False
    return True


def _classifier(name: str, runs: Path, device: torch.device) -> Judge:
    stage = load_stage(name, runs, device=device, precision="fp32")
    if not isinstance(stage, ClassifierStage):
        raise MismatchError(
            f"--features {name}: this stage draws images, a judge must be a classifier",
            next="cdm train features --preset classifier, then --features features",
        )
    extractor = ClassifierExtractor(
        stage,
        stage.resolution,
        stage.digest,
        channels=stage.config.channels,
        name=f"classifier-{stage.name}",
    )
    return Judge(extractor, stage.classes)


def _load_installed(name: str, device: torch.device) -> FeatureExtractor:
    """Call the entry point of that name with the device; it returns a FeatureExtractor."""
    entry = next(iter(entry_points(group=ENTRY_POINTS, name=name)))
    extractor: Any = entry.load()(device)
    needed = ("name", "digest", "feature_dim", "resize", "__call__")
    lacking = [part for part in needed if not hasattr(extractor, part)]
    if lacking:
        raise BadInputError(
            f"--features {name}: {entry.value} lacks {', '.join(lacking)}",
            next="see FeatureExtractor in cdm_cli/metrics/features.py",
        )
    return extractor
