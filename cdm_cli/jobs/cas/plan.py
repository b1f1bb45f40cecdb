"""What a Classification Accuracy Score trains on and tests with, checked from headers alone.

Two training sets, one recipe: the samples, and as many real training images of each class. The
steps are those of the samples for both. The test images are the validation split of the
reference, which no training ever reads.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cdm_cli.data.batches import TrainBatches
from cdm_cli.data.store import Part, Store
from cdm_cli.errors import MismatchError, UsageError
from cdm_cli.jobs.cas.recipe import CasRecipe, choose_recipe
from cdm_cli.jobs.judging.images import ImageSet, from_part
from cdm_cli.jobs.runtime.device import choose_precision
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.sampling.headers import compare_classes, compare_images
from cdm_cli.jobs.sampling.store_images import choose_part
from cdm_cli.metrics.order import choose_by_class
from cdm_cli.options.cas import CasOptions

UNTOUCHED = "nothing was written"


@dataclass(frozen=True)
class TrainingSet:
    """The images that one classifier is trained on: rows [M] of a part."""

    name: Literal["samples", "real"]
    images: ImageSet
    part: Part

    @property
    def rows(self) -> NDArray[np.int64]:
        """Their places, ascending."""
        return self.images.rows

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many there are of each class [K]."""
        return np.bincount(self.images.labels, minlength=len(self.images.classes))

    @property
    def digest(self) -> str:
        """SHA-256 over which images these are."""
        told = f"{self.images.digest}/{self.part.name}/{self.images.resolution}/"
        return hashlib.sha256(told.encode() + self.rows.astype("<i8").tobytes()).hexdigest()

    def take_batches(self, recipe: CasRecipe, world: World) -> TrainBatches:
        """Return this process's share of the batches of every step."""
        return TrainBatches(
            self.part, recipe.resolution, None, recipe.batch_size, recipe.seed,
            world.rank, world.size, chosen=self.rows,
        )  # fmt: skip


@dataclass(frozen=True)
class CasWork:
    """All that a score is made of."""

    recipe: CasRecipe
    samples: TrainingSet
    real: TrainingSet
    val: ImageSet

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes."""
        return self.val.classes


def plan_work(options: CasOptions, store: Store, ref: Store, device: torch.device) -> CasWork:
    """Choose the images and the recipe.

    Raises MissingError for an unfinished store, MismatchError where the stores do not fit each
    other, UsageError for a split that is not there or cannot be trained on, or too many images.
    """
    for each in (store, ref):
        each.require_finished()
    default = "" if "" in store.parts else "train"
    name, part = choose_part(store, options.split or default)
    _check_stores(store, name, ref)
    images = from_part(store, name, part, options.resolution, options.num, options.seed)
    samples = TrainingSet("samples", images, part)
    resolution = images.resolution
    _check_images(ref, resolution, part.count_channels(resolution), store)
    recipe = choose_recipe(
        options,
        resolution=resolution,
        channels=part.count_channels(resolution),
        num_classes=len(ref.classes),
        num=images.num,
        precision=choose_precision(options.compute.precision, device),
        seed=options.seed,
    )
    val = from_part(ref, "val", ref.parts["val"], resolution, None, 0)
    return CasWork(recipe, samples, _match(ref, samples, options.seed), val)


def make_key(work: CasWork, training: TrainingSet) -> str:
    """Return the SHA-256 over the training images, the test images and the recipe of a training."""
    told = f"{training.digest}/{work.val.digest}/{work.recipe.digest}"
    return hashlib.sha256(told.encode()).hexdigest()


def _check_stores(store: Store, name: str, ref: Store) -> None:
    if not {"train", "val"} <= set(ref.parts):
        raise MismatchError(
            f"cas tests on real validation images, and {ref.path} has no val split",
            kept=UNTOUCHED,
            next="cdm prepare SRC --val SRC, then --ref",
        )
    if name == "val" and store.digest == ref.digest:
        raise UsageError(
            f"--split val: cas tests on val of {ref.path}, so it cannot train on it",
            kept=UNTOUCHED,
            next="--split train",
        )
    if different := compare_classes(store.classes, ref.classes, "STORE", "--ref"):
        raise MismatchError(
            f"{store.path} and {ref.path} have different classes: {different}",
            kept=UNTOUCHED,
            next="--ref with the data that the samples were modelled on",
        )
    if len(ref.classes) < 2:
        raise MismatchError(
            f"{ref.path} has one class, a classifier needs two", kept=UNTOUCHED, next="cdm eval fid"
        )


def _check_images(ref: Store, resolution: int, channels: int, store: Store) -> None:
    """Raise MismatchError unless both splits of ref have such images."""
    parts = (ref.parts["train"], ref.parts["val"])
    faults = (compare_images(part, resolution, channels, "STORE", "--ref") for part in parts)
    if fault := next(filter(None, faults), ""):
        raise MismatchError(
            f"{store.path} and {ref.path} have different images: {fault}",
            kept=UNTOUCHED,
            next=f"cdm prepare … --resolution {resolution}, or another --ref",
        )


def _match(ref: Store, samples: TrainingSet, seed: int) -> TrainingSet:
    """Take as many real training images of each class as there are samples, or all there are.

    A class without a sample gets as many as the others have on average: that it is missing is
    for the comparison to show.
    """
    part, counts = ref.parts["train"], samples.counts
    every = from_part(ref, "train", part, samples.images.resolution, None, 0)
    counts = np.where(counts > 0, counts, round(counts[counts > 0].mean()))
    rows = choose_by_class(every.ids, every.labels, counts, seed)
    chosen = replace(every, rows=rows, ids=every.ids[rows], labels=every.labels[rows])
    return TrainingSet("real", chosen, part)
