"""Who judges against what, as far as headers tell: before any weights are loaded."""

import hashlib
from contextlib import ExitStack
from pathlib import Path

from cdm_cli.data.store import Store
from cdm_cli.errors import MismatchError
from cdm_cli.jobs.judging.judge import is_classifier_stage, is_inception, read_classifier
from cdm_cli.jobs.judging.real import RealImages, open_real
from cdm_cli.jobs.sampling.fitting import advise_store
from cdm_cli.jobs.sampling.headers import Header, describe_misfit, read_weights_digest
from cdm_cli.jobs.sampling.store_images import tell_kind
from cdm_cli.metrics.inception import FILES, find_weights
from cdm_cli.names import RUNS
from cdm_cli.options.judging import FeatureOptions
from cdm_cli.report import Report


def open_reference(path: Path, header: Header, stack: ExitStack, report: Report) -> RealImages:
    """Open the real images that samples of a stage will be compared with; say if they are samples.

    Raises MissingError, and MismatchError where resolution, channels or classes differ.
    """
    if path.suffix == ".npz":
        with open_real(path) as real:  # whose images, unpacked, are not needed
            return real
    real = stack.enter_context(open_real(path))
    if real.store is None:
        return real
    if reason := _find_misfit(header, real.store):
        raise MismatchError(
            f"--ref {path} does not fit {header.directory}: {reason}",
            kept="no output was made",
            next=advise_store(
                "--ref", path, lambda other: not _find_misfit(header, other),
                "another --ref, or cdm prepare with the stage's resolution", kind="prepared",
            ),
        )  # fmt: skip
    tell_kind(real.store, report)
    return real


def _find_misfit(header: Header, store: Store) -> str:
    """Return how the images of a store differ from those that a stage makes, "" if they do not."""
    side = header.config.model.resolution
    faults = (describe_misfit(header, store, part, side, "makes") for part in store.parts.values())
    return next(filter(None, faults), "")


def identify_judge(options: FeatureOptions, runs: Path = Path(RUNS)) -> dict[str, str]:
    """Return what tells judges apart.

    Raises MissingError where there is no judge of that name, MismatchError for a stage that
    draws images.
    """
    name = options.features
    if is_inception(options):
        if name == "inception":
            find_weights(FILES[options.mode])
        return {"judge": f"inception, {options.mode}"}
    if not is_classifier_stage(options, runs):
        return {"judge": name}
    directory, config = read_classifier(name, runs)
    return {
        "judge": "classifier",
        "judge_config": hashlib.sha256(config.model_dump_json().encode()).hexdigest(),
        "judge_weights": read_weights_digest(directory),
    }
