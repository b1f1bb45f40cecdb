"""One pass of a judge over images: from a store, through the network, into statistics."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cdm_cli.data.store import Part, Store
from cdm_cli.errors import BadInputError, MismatchError, UsageError
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.runtime.world import World
from cdm_cli.jobs.sampling.store_images import choose_part, choose_resolution
from cdm_cli.metrics.collector import KEEP, Collector
from cdm_cli.metrics.features import FeatureExtractor
from cdm_cli.metrics.jackknife import NUM_GROUPS
from cdm_cli.metrics.order import choose_balanced
from cdm_cli.nets.memory import Halving

BATCH = {"cpu": 32, "cuda": 256}


@dataclass(frozen=True)
class ImageSet:
    """Images to be judged: the chosen rows [N] of images uint8 [M, H, W, C].

    ids, labels: int64 [N]. check: called with the rows about to be read, to verify them.
    """

    name: str
    digest: str
    images: np.ndarray
    rows: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    check: Callable[[np.ndarray], None] = lambda rows: None

    @property
    def num(self) -> int:
        """N, the number of images."""
        return len(self.rows)

    @property
    def resolution(self) -> int:
        """The height and width of the images, in pixels."""
        return int(self.images.shape[1])

    def read(self, places: np.ndarray) -> Tensor:
        """Return the images at places [B], uint8 [B, C, H, W]."""
        rows = self.rows[places]
        self.check(rows)
        whole = len(rows) and rows[-1] - rows[0] == len(rows) - 1
        images = self.images[rows[0] : rows[-1] + 1] if whole else self.images[rows]
        return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)  # read here, not later

    def balance(self) -> str:
        """Return how many images each class has that has any, in words."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        there = counts[counts > 0]
        low, high = int(there.min(initial=self.num)), int(there.max(initial=0))
        each = f"{low}" if low == high else f"{low}–{high}"
        some = f"{len(there)} of " if len(there) < len(counts) else ""
        return f"{some}{len(counts)} classes × {each}"


def from_part(
    store: Store, name: str, part: Part, resolution: int | None, num: int | None, seed: int
) -> ImageSet:
    """Choose num images of a part, class-balanced by a fixed shuffle; None: all.

    Raises UsageError for a resolution or a number that the part does not have.
    """
    resolution = choose_resolution(store, part, resolution)
    if num is not None and num > part.num:
        raise UsageError(f"--num {num}: {store.path} has {part.num}", next=f"--num {part.num}")
    ids, labels = np.asarray(part.ids), np.asarray(part.labels)
    rows = np.arange(part.num) if num is None else choose_balanced(ids, labels, num, seed)
    return ImageSet(
        name=f"{store.path}:{name}" if name else str(store.path),
        digest=store.digest,
        images=part.images(resolution),
        rows=rows,
        ids=ids[rows],
        labels=labels[rows],
        classes=tuple(store.classes),
        check=part.check,
    )


def from_store(
    store: Store, split: str | None, resolution: int | None, num: int | None, seed: int
) -> ImageSet:
    """Choose images of a finished store; of prepared data one split, val unless named."""
    store.require_finished()
    name, part = choose_part(store, split)
    return from_part(store, name, part, resolution, num, seed)


def from_arrays(
    name: str, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]
) -> ImageSet:
    """Take images uint8 [N, H, W, C] in memory, with their labels [N]; ids are 0..N-1."""
    ids = np.arange(len(images))
    return ImageSet(name, "", images, ids, ids, labels.astype(np.int64), classes)


def take_queue_of_caller(device: torch.device) -> Callable[[], None]:
    """Return what makes another thread queue its work on a GPU where the caller does, in order."""
    if device.type != "cuda":
        return lambda: None
    queue = torch.cuda.current_stream(device)
    return lambda: torch.cuda.set_stream(queue)


def read_batches(images: ImageSet, session: Session) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Yield (places [B], uint8 [B, C, H, W] on the device): this process's share, in order.

    The next batch is read, checked and copied while the network works on this one.
    """
    device, world = session.device, session.world
    batch_size = session.compute.batch_size or BATCH[device.type]
    mine = np.array_split(np.arange(images.num), world.size)[world.rank]
    pieces = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]

    def read(places: np.ndarray) -> Tensor:
        batch = images.read(places)
        if device.type != "cuda":
            return batch
        return batch.contiguous().pin_memory().to(device, non_blocking=True)

    with ThreadPoolExecutor(1, "cdm-read", take_queue_of_caller(device)) as thread:
        ahead = [thread.submit(read, places) for places in pieces[:2]]
        for index, places in enumerate(pieces):
            batch = ahead.pop(0).result()
            if index + 2 < len(pieces):
                ahead.append(thread.submit(read, pieces[index + 2]))
            yield places, batch


def collect(
    images: ImageSet,
    extractor: FeatureExtractor,
    session: Session,
    *,
    keep: int = KEEP,
    seed: int = 0,
    uncertain: bool = True,
    num_groups: int = NUM_GROUPS,
) -> Collector:
    """Judge every image once. uncertain: whether numbers get errors, for twice the memory.

    num_groups: of the images, for these errors. Raises MismatchError for one image, or fewer than
    processes, and BadInputError for features that are not finite.
    """
    world = session.world
    least = max(2, world.size)
    if images.num < least:
        raise MismatchError(
            f"{images.name} has {images.num} of at least {least} images: two make a covariance, "
            "and each process judges one",
            next="more images, or fewer processes",
        )
    collector = Collector.empty(
        images.ids, images.labels, extractor.feature_dim, device=session.device, keep=keep,
        seed=seed, num_groups=num_groups if uncertain else 1,
    )  # fmt: skip
    judge = Halving(extractor, session.device, session.report.say)
    with session.report.track(f"judge {images.name}", images.num, "images") as advance:
        for places, batch in read_batches(images, session):
            features, probabilities = judge(batch)
            collector.add(places, features, probabilities)
            advance(len(places) * world.size, "")
    gather(collector, world, f"{extractor.name} gives features of {images.name}")
    collector.to_host()
    return collector


def gather(collector: Collector, world: World, what: str, kept: str = "") -> None:
    """Add up in every process what all of them have seen.

    Raises BadInputError where it is not finite. what: whose features are of what. kept: what
    became of what was done before.
    """
    first, *rest = collector.tensors()
    world.sum_(rest, first)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in collector.tensors()):
        raise BadInputError(
            f"{what} that are not finite", kept=kept, next="check the weights of the judge"
        )
