"""Who judges against what, as far as headers tell: before any weights are loaded."""

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from cdm_cli.cascade.checkpoint import find_stage, read_stage_file
from cdm_cli.config import ClassifierConfig
from cdm_cli.data.store import Store, open_store
from cdm_cli.errors import MismatchError, MissingError
from cdm_cli.jobs.judging.judge import is_classifier_stage
from cdm_cli.jobs.judging.npz import open_npz
from cdm_cli.jobs.sampling.headers import Header, different_classes, weights_digest
from cdm_cli.jobs.sampling.provenance import parent
from cdm_cli.metrics.inception import FILES, find_weights
from cdm_cli.names import RUNS
from cdm_cli.options.judging import FeatureOptions


@dataclass(frozen=True)
class RealImages:
    """What `--ref` names. store: the prepared store, None for a file of statistics."""

    path: Path
    digest: str
    store: Store | None

    @property
    def parent(self) -> dict[str, str]:
        """Its entry among the parents of what is judged against it."""
        return parent("ref", self.path.name, self.digest)


def open_reference(path: Path, header: Header, stack: ExitStack) -> RealImages:
    """Open the real images that samples of a stage will be compared with.

    Raises MissingError, and MismatchError where resolution, channels or classes differ.
    """
    if not path.exists():
        raise MissingError(
            f"--ref {path} does not exist",
            next="cdm prepare makes data.h5 from real images; or --ref FILE",
        )
    if path.suffix == ".npz":
        with open_npz(path) as npz:
            return RealImages(path, npz.digest, None)
    store = stack.enter_context(open_store(path))
    store.require_finished()
    reason = _misfit(store, header)
    if reason:
        raise MismatchError(
            f"--ref {path} does not fit {header.directory}: {reason}",
            kept="no output was made",
            next="another --ref, or cdm prepare with the stage's resolution",
        )
    return RealImages(path, store.digest, store)


def _misfit(store: Store, header: Header) -> str:
    model = header.config.model
    for part in store.parts.values():
        if model.resolution not in part.resolutions:
            there = ", ".join(map(str, part.resolutions))
            return f"it has images of {there} pixels, the stage makes {model.resolution}"
        channels = part.channels(model.resolution)
        if channels != model.channels:
            return f"it has {channels} channels, the stage {model.channels}"
    return different_classes(header, store.classes) if model.num_classes else ""


def judge_fields(options: FeatureOptions, runs: Path = Path(RUNS)) -> dict[str, str]:
    """Return what tells judges apart.

    Raises MissingError where there is no judge of that name, MismatchError for a stage that
    draws images.
    """
    name, file = options.features, FILES[options.mode]
    if name == "inception":
        find_weights(file)
    if name == "inception" or Path(name).name == file.name:
        return {"judge": f"inception, {options.mode}"}
    if not is_classifier_stage(options, runs):
        return {"judge": name}
    directory = find_stage(name, runs)
    config = read_stage_file(directory).plan.stage
    if not isinstance(config, ClassifierConfig):
        raise MismatchError(
            f"--features {name}: this stage draws images, a judge must be a classifier",
            next="cdm train features --preset classifier, then --features features",
        )
    return {
        "judge": "classifier",
        "judge_config": hashlib.sha256(config.model_dump_json().encode()).hexdigest(),
        "judge_weights": weights_digest(directory),
    }
