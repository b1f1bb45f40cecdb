"""What `cdm train` is about to do: preset, overrides and data together."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cdm_cli.__version__ import __version__
from cdm_cli.cascade.stagefile import STAGE_FILE, read_stage_file, write_stage_file
from cdm_cli.config import AnyStageConfig, ClassifierConfig, StageConfig
from cdm_cli.data.batches import TrainBatches
from cdm_cli.data.store import Part, Store
from cdm_cli.errors import MismatchError, UsageError, quote
from cdm_cli.jobs.runtime import identity
from cdm_cli.jobs.runtime.lock import hold_lock
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.sampling.classes import describe_empty, find_empty_classes
from cdm_cli.options.training import TrainOptions
from cdm_cli.overrides import with_overrides
from cdm_cli.plans import DataInfo, Plan, StageFile, TrainingConfig
from cdm_cli.presets import plan_of_preset
from cdm_cli.report import Report
from cdm_cli.settings import validate

EXACT = False  # whether a new training is exact unless --no-exact
VIRTUAL_RANKS = 8  # of an exact training, where its batch has so many equal parts

# What may change between two runs of one command. Two of them change weights: `steps` those of a
# classifier (`tell_new_fall`), `micro_batch` their last bits.
FREE = {"steps", "log_every", "save_every", "grid_every", "sample_s", "keep", "micro_batch",
        "gradient_checkpointing"}  # fmt: skip


def plan_from_flags(options: TrainOptions) -> Plan:
    """Return the plan that the flags ask for, before the data are looked at.

    It is the preset with --set, --steps and their like put in, --exact as virtual ranks. Without
    --preset it is that of the run which exists. Raises UsageError if there is none.
    """
    directory = options.directory
    if options.preset is not None:
        plan = plan_of_preset(options.preset, options.overrides)
    elif (directory / STAGE_FILE).is_file():
        plan = with_overrides(read_stage_file(directory).plan, options.overrides)
    else:
        raise UsageError(
            f"{directory} does not exist yet, so --preset must say what to train",
            next=f"cdm train {quote(options.name)} --preset …, or cdm train --list-presets",
        )
    short = {name: getattr(options, name) for name in ("steps", "batch_size", "seed", "flip")}
    changes: dict[str, Any] = {key: value for key, value in short.items() if value is not None}
    if options.compute.precision != "auto":
        changes["precision"] = options.compute.precision
    plan = _change(plan, training=changes)
    return _change(plan, training=_choose_keying(directory, plan.training, options))


def _choose_keying(
    directory: Path, training: TrainingConfig, options: TrainOptions
) -> dict[str, Any]:
    """Return by what random numbers are keyed, and the virtual ranks: as begun, where it is."""
    begun = (directory / STAGE_FILE).is_file()
    old = read_stage_file(directory).plan.training if begun else None
    had = training.virtual_ranks or (old.virtual_ranks if old else 0)
    exact = options.exact
    if exact is None:
        exact = bool(had) if had or old else EXACT
    ranks = math.gcd(had or VIRTUAL_RANKS, training.batch_size) if exact else 0
    if ranks == 1:
        raise UsageError(
            f"--exact: a batch of {training.batch_size} has no two equal halves",
            next=f"--batch-size {-(-training.batch_size // VIRTUAL_RANKS) * VIRTUAL_RANKS}",
        )
    return {"keyed_by": (old or training).keyed_by, "virtual_ranks": ranks}


def _change(plan: Plan, **groups: Mapping[str, Any]) -> Plan:
    values = plan.model_dump()
    for group, changes in groups.items():
        values[group].update(changes)
    return validate(Plan, values, source=f"preset {plan.preset}")


def find_training_part(store: Store) -> Part:
    """Return the images to train on: the train split, or all of a store of samples."""
    return store.parts["train"] if "train" in store.parts else store.parts[""]


def fit_to_data(plan: Plan, store: Store, options: TrainOptions) -> Plan:
    """Take classes, channels and (for a classifier) the resolution from the data.

    What `--set` says stays: no classes, for an unconditional model, and a classifier's resolution.
    Raises UsageError where it says other classes or channels than the data have, and MismatchError
    listing what the store has where a resolution is not in it.
    """
    part, stage = find_training_part(store), plan.stage
    typed = {assignment.partition("=")[0].strip() for assignment in options.overrides}
    said = set(typed)
    if options.preset is None:
        said |= {"resolution", "model.num_classes"}  # as the run that exists has them
    num_classes = len(store.classes)
    if isinstance(stage, ClassifierConfig):
        resolution = stage.resolution if "resolution" in said else max(part.resolutions)
        _check_resolution("resolution", resolution, part, store, max)
        changes = {
            "resolution": resolution,
            "channels": part.count_channels(resolution),
            "num_classes": num_classes,
        }
        _check_typed(typed, "", stage.model_dump(), changes, store)
        return _change(plan, stage=changes)
    rather = max if stage.conditioning else min
    _check_resolution("model.resolution", stage.model.resolution, part, store, rather)
    if low := stage.conditioning:
        _check_resolution("conditioning.resolution", low.resolution, part, store, min)
    if "model.num_classes" in said and stage.model.num_classes == 0:
        num_classes = 0  # an unconditional model was asked for
    channels = part.count_channels(stage.model.resolution)
    changes = {"channels": channels, "num_classes": num_classes}
    before = stage.model.model_dump()
    _check_typed(typed, "model.", before, changes, store)
    return _change(plan, stage={"model": {**before, **changes}})


def _check_typed(
    typed: set[str], prefix: str, asked: Mapping[str, Any], found: Mapping[str, int], store: Store
) -> None:
    """Raise UsageError where a setting was typed otherwise than the data have it."""
    for name, value in found.items():
        if prefix + name in typed and asked[name] != value:
            raise UsageError(
                f"--set {prefix}{name}={asked[name]}: {store.path} has {value}",
                next="leave it out, it is taken from the data",
            )


def _check_resolution(
    setting: str, resolution: int, part: Part, store: Store, rather: Callable[[Iterable[int]], int]
) -> None:
    if resolution in part.resolutions:
        return
    has = ", ".join(str(found) for found in part.resolutions)
    raise MismatchError(
        f"{store.path} has images of {has}, the stage needs {resolution}",
        kept="nothing was written",
        next=f"cdm prepare SRC --resolution {resolution} …, another --preset, or "
        f"--set {quote(f'{setting}={rather(part.resolutions)}')}",
    )


def tell_trained_classes(store: Store, plan: Plan, empty: Sequence[int], report: Report) -> None:
    """Say what is to be known of the classes before a training. empty: those without images."""
    if empty:
        report.say(f"{store.path}: {describe_empty(store.classes, empty)}")
    if plan.stage.kind == "classifier" and len(store.classes) - len(empty) < 2:
        report.say(f"{store.path} shows one class: the classifier has nothing to tell apart")


def describe_data(store: Store) -> DataInfo:
    """Return what `stage.json` records of the data: name, digest, classes and numbers of images."""
    val = store.parts.get("val")
    return DataInfo(
        name=store.path.name,
        digest=store.digest,
        classes=tuple(store.classes),
        num_train=find_training_part(store).num,
        num_val=val.num if val else 0,
        without_images=find_empty_classes(find_training_part(store).labels, len(store.classes)),
    )


def check_same(directory: Path, plan: Plan, data: DataInfo) -> None:
    """Raise WouldOverwriteError showing what differs from the run that exists, if one does.

    Only the settings in FREE (steps, logging, saving, grids, memory) and how the stage is
    sampled by default may differ.
    """
    if not (directory / STAGE_FILE).is_file():
        return
    old = read_stage_file(directory)
    before = {**_list_fixed_fields(old.plan), "data": old.data.digest if old.data else ""}
    identity.check_same(
        directory, "training", before, {**_list_fixed_fields(plan), "data": data.digest},
        next="choose another NAME, or repeat the flags that it was made with",
    )  # fmt: skip


def claim_directory(
    directory: Path, plan: Plan, data: DataInfo, stack: ExitStack
) -> StageFile | None:
    """Lock the directory of a stage until the stack is closed, and write its `stage.json`.

    Returns the one that was there, if one was; what searches applied to that stage stays. The lock
    is flock(2) and ends with its owner. Raises StoppedError while another process trains it.
    """
    stack.enter_context(hold_lock(directory))
    file = StageFile(cdm_version=__version__, plan=plan, data=data)
    old = read_stage_file(directory) if (directory / STAGE_FILE).is_file() else None
    if old:
        file = file.model_copy(update={"applied": old.applied, "in_force": old.in_force})
    write_stage_file(directory, file)
    return old


def tell_new_fall(old: StageFile | None, plan: Plan, done: int, report: Report) -> None:
    """Say where a classifier goes on after step `done` to another last step than it was told.

    Its learning rate falls until the last step, so every later rate is another one.
    """
    steps = plan.training.steps
    if old is None or not isinstance(plan.stage, ClassifierConfig) or not 0 < done < steps:
        return
    if (was := old.plan.training.steps) != steps:
        report.say(
            f"--steps was {was}, is {steps}: after step {done} the learning rate falls towards 0 "
            f"until step {steps}, no longer until step {was}"
        )


def _list_fixed_fields(plan: Plan) -> dict[str, Any]:
    """Return what must not change under one name: all that has a part in the weights."""
    values = plan.model_dump(mode="json", exclude={"source"})
    values["stage"].pop("sampling", None)
    values["training"] = {k: v for k, v in values["training"].items() if k not in FREE}
    values["training"].setdefault("virtual_ranks", 0)  # told as what it means
    return values


def find_resolution(stage: AnyStageConfig) -> int:
    """Return the side, in pixels, of the images that a stage makes, or that a classifier takes."""
    return stage.model.resolution if isinstance(stage, StageConfig) else stage.resolution


def open_batches(plan: Plan, store: Store, world: World) -> TrainBatches:
    """Return the batches of a training, of each of which this process takes its share.

    They are of the train split, or of all of a store of samples (`find_training_part`), shuffled by
    training.seed.
    """
    stage, training = plan.stage, plan.training
    conditioning = stage.conditioning if isinstance(stage, StageConfig) else None
    return TrainBatches(
        find_training_part(store),
        find_resolution(stage),
        conditioning.resolution if conditioning else None,
        training.batch_size,
        training.seed,
        world.rank,
        world.size,
    )
