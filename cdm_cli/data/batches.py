"""Endless shuffled training batches out of a store, decided by the step alone.

Shapes: x_0 uint8 [B, C, H, W], z_0 uint8 [B, C, h, w], y int64 [B]. Step k = 1, 2, …
holds places (k - 1) B to k B - 1 of an endless row of epochs, each a permutation of all
samples that depends on the seed and the epoch. So training resumes by its step, and any number
of processes share the same global batch.
"""

import queue
import threading
from collections.abc import Generator
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cdm_cli.data.part import Part
from cdm_cli.errors import MismatchError

AHEAD = 3


class TrainBatch(NamedTuple):
    """One batch, this process's share of it, or some rows of that: uint8 images and labels.

    z_0: only for a super-resolution stage.
    """

    x_0: Tensor  # uint8 [B, C, H, W]
    z_0: Tensor | None  # uint8 [B, C, h, w]
    y: Tensor  # int64 [B]


Item = TrainBatch | BaseException  # of a thread that reads ahead


def hash_numbers(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash each number (splitmix64, Steele et al. 2014); the overflow of uint64 is intended."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def permute(num: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of an epoch, int64 [num]; the same on every machine and version of NumPy."""
    key = hash_numbers(hash_numbers(np.array([seed], np.uint64)) ^ np.uint64(epoch))
    return np.argsort(
        hash_numbers(key ^ hash_numbers(np.arange(num, dtype=np.uint64))), kind="stable"
    )


class TrainBatches:
    """Batches of a part's images, of which this process takes the share of its rank.

    Step k = 1, 2, … has places (k - 1) B to k B - 1 of the endless row of epochs, across their
    borders; rank r takes the r-th of `world` equal runs of these. An epoch has all images in the
    order of a permutation, which seed and epoch decide. batch_size B is that of all `world`
    processes together, a multiple of world. chosen: the rows [M] that take part; None: all. Raises
    MismatchError for a resolution that the part lacks.
    """

    def __init__(
        self,
        part: Part,
        resolution: int,
        low_resolution: int | None,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        chosen: NDArray[np.int64] | None = None,
    ) -> None:
        for res in (resolution, low_resolution):
            if res is not None and res not in part.resolutions:
                raise MismatchError(
                    f"the data hold resolutions {part.resolutions}, not {res}",
                    next=f"cdm prepare … --resolution {res}",
                )
        if batch_size % world:
            raise ValueError(f"batch_size {batch_size} is no multiple of {world} processes")
        self._part, self._chosen = part, chosen
        self._num = part.num if chosen is None else len(chosen)
        self._names = [f"images/{res}" for res in (resolution, low_resolution) if res is not None]
        self._batch_size, self._seed, self._rank, self._world = batch_size, seed, rank, world
        self._orders: dict[int, NDArray[np.int64]] = {}

    def choose_rows(self, step: int) -> NDArray[np.int64]:
        """Return the rows of this process's share of a step (1, 2, …), [B / world]."""
        share = self._batch_size // self._world
        first = (step - 1) * self._batch_size + self._rank * share
        places = np.arange(first, first + share)
        epochs = places // self._num
        rows = np.empty(share, np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            rows[chosen] = self._permute(int(epoch))[places[chosen] % self._num]
        return rows if self._chosen is None else self._chosen[rows]

    def _permute(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            self._orders = {e: o for e, o in self._orders.items() if e >= epoch - 1}
            self._orders[epoch] = permute(self._num, self._seed, epoch)
        return self._orders[epoch]

    def read_batch(self, step: int, *, pin: bool = False) -> TrainBatch:
        """Return this process's share of a step (1, 2, …), on the CPU, images channels-last.

        pin: in memory that a GPU reads by itself; a copy from other memory may wait for the step
        before. Each block is compared with its digest before its first use. Raises BadInputError.
        """
        rows = self.choose_rows(step)
        self._part.check(rows)
        images = [self._gather(name, rows, pin) for name in self._names]
        y = torch.from_numpy(self._part.read_labels(rows))
        y = y.pin_memory() if pin else y
        return TrainBatch(images[0], images[1] if len(images) > 1 else None, y)

    def _gather(self, name: str, rows: NDArray[np.int64], pin: bool) -> Tensor:
        mapped = self._part.images(int(name.rpartition("/")[2]))
        out = torch.empty((len(rows), *mapped.shape[1:]), dtype=torch.uint8, pin_memory=pin)
        np.take(mapped, rows, axis=0, out=out.numpy(), mode="clip")
        return out.permute(0, 3, 1, 2)

    def iterate(self, start_step: int, device: torch.device | str = "cpu") -> Generator[TrainBatch]:
        """Yield the batches of start_step, start_step + 1, … on a device; a thread reads ahead.

        Images are contiguous [B, C, H, W]. An error of the thread is raised here; closing the
        iterator ends the thread.
        """
        device = torch.device(device)
        pin = device.type == "cuda"
        ready: queue.Queue[Item] = queue.Queue(AHEAD)
        stop = threading.Event()

        def read() -> None:
            step = start_step
            while not stop.is_set():
                try:
                    item = self.read_batch(step, pin=pin)
                except BaseException as error:  # handed to the consumer, whatever it is
                    item = error
                _put(ready, item, stop)
                if isinstance(item, BaseException):
                    return
                step += 1

        thread = threading.Thread(target=read, name="batches", daemon=True)
        thread.start()
        try:
            while True:
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield TrainBatch(*(_move(tensor, device) for tensor in item))  # pyright: ignore[reportArgumentType]
        finally:
            stop.set()
            thread.join()


def _put(ready: queue.Queue[Item], item: Item, stop: threading.Event) -> None:
    """Put an item once there is room, unless asked to stop before."""
    while not stop.is_set():
        with suppress(queue.Full):
            return ready.put(item, timeout=0.1)


def _move(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return None if tensor is None else tensor.to(device, non_blocking=True).contiguous()
