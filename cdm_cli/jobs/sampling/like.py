"""`cdm sample --like STORE`: as many samples of each class as a store has images of it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cdm_cli.data.store import open_store
from cdm_cli.errors import MismatchError, quote
from cdm_cli.jobs.sampling.headers import Header, compare_classes
from cdm_cli.names import MOST_COUNTED


def count_like(
    path: Path, header: Header, classes: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Count the images of classes in a store: in train of prepared data, else in its only part.

    Returns the classes that have images, and how many each of them has. Raises MissingError without
    the store; MismatchError where its classes are not the stage's, where none of those asked for
    has an image, or for more than 2^25 images.
    """
    with open_store(path) as store:
        if reason := compare_classes(header.classes, store.classes):
            raise MismatchError(
                f"--like {path}: {reason}",
                next=f"the store that {quote(header.directory)} learned from",
            )
        part = store.parts.get("train") or next(iter(store.parts.values()))
        if part.num > MOST_COUNTED:
            raise MismatchError(
                f"--like {path}: {part.num} images, {MOST_COUNTED} can be counted",
                next="--per-class N, the same number of each",
            )
        all_counts = np.bincount(part.read_labels(slice(None)), minlength=len(store.classes))
    seen = [label for label in classes if all_counts[label]]
    if not seen:
        raise MismatchError(
            f"--like {path}: it has no image of these classes",
            next="--classes with some that it has images of, or without --classes",
        )
    return tuple(seen), tuple(int(all_counts[label]) for label in seen)
