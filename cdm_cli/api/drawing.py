"""Stages, and the samples that they draw and enlarge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cdm_cli.api.asked import (
    list_numbers,
    make_options,
    require_array,
    require_loaded,
    require_pixels,
    take_integers,
)
from cdm_cli.api.reading import NOTHING, Samples
from cdm_cli.api.warned import choose_report
from cdm_cli.cascade.checkpoint import load_diffusion_stage
from cdm_cli.cascade.stage import Stage
from cdm_cli.cascade.stagefile import find_stage
from cdm_cli.errors import UsageError
from cdm_cli.jobs.runtime.device import choose_precision, make_deterministic, pick_device
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.sampling.fill import Arrays
from cdm_cli.jobs.sampling.fitting import require_base
from cdm_cli.jobs.sampling.headers import Header, read_header
from cdm_cli.jobs.sampling.in_memory import plan_in_memory, sample_in_memory
from cdm_cli.jobs.sampling.sample import make_work, tell_choices
from cdm_cli.jobs.sampling.store_images import ImageArrays
from cdm_cli.jobs.sampling.upsample import tell_settings, tell_unseen_classes
from cdm_cli.jobs.sampling.work import Work
from cdm_cli.names import RUNS, Device, Precision, Sampler, Variance
from cdm_cli.options.sampling import Compute, SampleOptions, UpsampleOptions
from cdm_cli.report import Report
from cdm_cli.sentences import suggest_near


@dataclass(frozen=True)
class LoadedStage:
    """A stage on its device: what its directory says of it, and its network."""

    header: Header
    stage: Stage
    compute: Compute
    weights: str = "ema"

    @property
    def kind(self) -> str:
        """Whether it is "base", or "sr", which enlarges."""
        return self.header.config.kind

    @property
    def resolution(self) -> int:
        """The side of the images that it draws."""
        return self.header.config.model.resolution

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; a label is a place among them."""
        return self.header.classes


class How(TypedDict, total=False):
    """How the reverse process is run; settings left out are the stage's own. steps 0: all T."""

    sampler: Sampler
    steps: int
    variance: Variance
    schedule: Path | str
    restart_from: int
    clip: bool


def load_stage(
    name_or_path: str | Path,
    *,
    weights: str = "ema",
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: int | None = None,
    compile: bool | None = None,
) -> LoadedStage:
    """Load a stage for `sample` or `upsample`: a name in runs/, or a directory.

    weights: "ema", "best" or a checkpoint, "step-00001000". The rest is as of `cdm sample`; on
    CUDA, torch is set to kernels that give the same bits again. Raises CdmError for what is not
    there, is damaged, or is a classifier.
    """
    said: dict[str, Any] = {"device": device, "precision": precision}
    compute = make_options(Compute, **said, batch_size=batch_size, compile=compile)
    where = pick_device(compute.device)
    make_deterministic(where)
    header = read_header(find_stage(name_or_path, Path(RUNS)))
    loaded = load_diffusion_stage(
        header.directory, Path(RUNS), weights, where,
        precision=choose_precision(compute.precision, where),
    )  # fmt: skip
    return LoadedStage(header, loaded, compute, weights)


def sample(
    stage: LoadedStage,
    *,
    classes: str | int | Sequence[int] | None = None,
    num: int | None = None,
    per_class: int | None = None,
    keep_s: int | Sequence[int] = (),
    seed: int = 0,
    report: Report | None = None,
    **how: Unpack[How],
) -> Samples:
    """Draw samples of a base stage: those that `cdm sample` would write, to the bit.

    classes: ids, or "0-9,17,tench"; by default all that it has seen. keep_s: times s whose
    states are returned as `z`. report: hears of progress, and what the command
    would say; without one, that is a warning. Raises CdmError for what cannot be.
    """
    require_loaded("stage", stage, LoadedStage, "load_stage")
    named = classes if isinstance(classes, str | None) else list_numbers(classes)
    listed = ",".join(map(str, named)) if isinstance(named, tuple) else named
    options = make_options(
        SampleOptions, classes=listed, num=num, per_class=per_class, keep_s=list_numbers(keep_s),
        sampling=_sampling(stage, seed, how),
    )  # fmt: skip
    work, told = make_work(require_base(stage.header), options), choose_report(report)
    tell_choices(options, work, told)
    return _draw(stage, work, told)


def upsample(
    stage: LoadedStage,
    images: NDArray[np.uint8],
    labels: ArrayLike,
    *,
    s: int | None = None,
    z_s: NDArray[np.float16] | None = None,
    ids: ArrayLike | None = None,
    keep_s: int | Sequence[int] = (),
    seed: int = 0,
    report: Report | None = None,
    **how: Unpack[How],
) -> Samples:
    """Enlarge images by a super-resolution stage, as `cdm upsample` would, to the bit.

    images: uint8 [N, h, w, C], labels: [N]. s: the time of conditioning augmentation, by
    default what `sweep-s --apply` found. z_s: float16 [N, h, w, C], states that were kept at s,
    by a process of the stage's z_schedule (truncated); without them the images are noised to s
    (non-truncated). ids: by default 0..N-1. Raises CdmError for what cannot be.
    """
    require_loaded("stage", stage, LoadedStage, "load_stage")
    require_pixels("images", images)
    if z_s is not None:
        require_array("z_s", z_s, "float16 [N, h, w, C]")
    options = make_options(
        UpsampleOptions, s=s, augment="non-truncated" if z_s is None else "truncated",
        keep_s=list_numbers(keep_s), sampling=_sampling(stage, seed, how),
    )  # fmt: skip
    own_ids = take_integers("ids", np.arange(len(images)) if ids is None else ids, len(images))
    z: Mapping[int, Any] = NOTHING if z_s is None or s is None else {s: z_s}
    given = ImageArrays(images, take_integers("labels", labels, len(images)), own_ids, z)
    work, told = plan_in_memory(stage.header, given, options), choose_report(report)
    tell_settings(options, work, told)
    tell_unseen_classes(work, given.labels, told)
    return _draw(stage, work, told)


def _sampling(stage: LoadedStage, seed: int, how: How) -> dict[str, Any]:
    """Return the settings of a reverse process; raise UsageError for one that there is not."""
    known = How.__annotations__
    for name in how.keys() - known.keys():
        raise UsageError(suggest_near(f"{name}: there is no such setting", name, known))
    return {"seed": seed, "weights": stage.weights, **how}


def _draw(stage: LoadedStage, work: Work, report: Report) -> Samples:
    session = Session(stage.stage.device, stage.compute, report=report)
    arrays: Arrays = sample_in_memory(work, stage.stage, session)
    images = arrays[f"images/{stage.resolution}"]
    z = {s: arrays[f"z/{s}"] for s in work.keep}
    return Samples(images, arrays["labels"], arrays["ids"], z)
