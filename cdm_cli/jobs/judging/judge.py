"""Who judges: Inception, a classifier stage, or an extractor that some package installs."""

from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch

from cdm_cli.cascade.checkpoint import load_stage
from cdm_cli.cascade.classifier import ClassifierStage
from cdm_cli.cascade.stagefile import advise_stage, find_stage, read_stage_file
from cdm_cli.config import ClassifierConfig
from cdm_cli.errors import BadInputError, MismatchError, MissingError
from cdm_cli.metrics.features import ClassifierExtractor, FeatureExtractor
from cdm_cli.metrics.inception import FILES, InceptionExtractor
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
    if is_inception(options):
        weights = None if name == "inception" else Path(name)
        return Judge(InceptionExtractor(options.mode, device, weights=weights))
    if is_classifier_stage(options, runs):
        return _load_classifier(name, runs, device)
    return Judge(_load_installed(name, device))


def is_inception(options: FeatureOptions) -> bool:
    """Say whether `--features` is "inception", or names a file of its weights."""
    return options.features == "inception" or (
        Path(options.features).name == FILES[options.mode].name
    )


def is_classifier_stage(options: FeatureOptions, runs: Path = Path(RUNS)) -> bool:
    """Say whether `--features` names a stage; raise MissingError where it names nothing."""
    name = options.features
    if is_inception(options):
        return False
    try:
        find_stage(name, runs)
    except MissingError as error:
        if not entry_points(group=ENTRY_POINTS, name=name):
            advised = advise_stage("classifier", runs / name, "--features")
            raise MissingError(f"--features {name}: {error.what}", next=advised) from None
        return False
    return True


def read_classifier(name: str, runs: Path) -> tuple[Path, ClassifierConfig]:
    """Return the directory and the configuration of a stage that judges; no weight is read.

    Raises MissingError where there is no such stage, MismatchError for one that draws images.
    """
    directory = find_stage(name, runs)
    config = read_stage_file(directory).plan.stage
    if not isinstance(config, ClassifierConfig):
        raise MismatchError(
            f"--features {name}: this stage draws images, a judge must be a classifier",
            next=advise_stage("classifier", directory, "--features"),
        )
    return directory, config


def _load_classifier(name: str, runs: Path, device: torch.device) -> Judge:
    read_classifier(name, runs)
    stage = load_stage(name, runs, device=device, precision="fp32")
    assert isinstance(stage, ClassifierStage)
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
