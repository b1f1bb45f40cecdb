"""Filling a store with prepared images: blocks decoded and written by several processes.

Each process decodes one block and writes it into the store itself. An image that cannot be
used leaves a row of zeros with a negative id, which `jobs/prepare/prepare.py` takes out at the end.
"""

import multiprocessing as mp
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cdm_cli.data.images import BadImageError
from cdm_cli.data.memory import keep_memory_of_images
from cdm_cli.data.part import Part
from cdm_cli.data.prepared import ImageRecipe, prepare_image
from cdm_cli.data.schema import PartName
from cdm_cli.data.sources import Source
from cdm_cli.data.store import open_store
from cdm_cli.errors import BadInputError, MemoryFloorError, StoppedError
from cdm_cli.jobs.runtime.ends import AGAIN, name_cause
from cdm_cli.jobs.runtime.handover import Handover, hand_over, start_processes
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.sampling.blocks import describe_complete
from cdm_cli.report import Report

AHEAD = 2  # blocks that wait for each process
LEFT_OUT = -1  # id of row i where its image cannot be used: LEFT_OUT - i


@dataclass(frozen=True)
class Images:
    """The images of one part, in the order of its rows, and their labels [N]."""

    source: Source
    y: NDArray[np.int64]
    recipe: ImageRecipe
    strict: bool


def write_block(part: Part, b: int, images: Images) -> Counter[str]:
    """Decode the images of block b and write it; return how many took which conversion.

    Raises BadInputError for an image that cannot be used, if strict; DiskError.
    """
    rows, recipe, conversions = part.list_rows(b), images.recipe, Counter[str]()
    ids = np.arange(rows.start, rows.stop)
    pixels = {
        res: np.zeros((len(rows), res, res, recipe.channels), np.uint8)
        for res in recipe.resolutions
    }
    for place, row in enumerate(rows):
        name = images.source.names[row]
        try:
            found, kinds = prepare_image(images.source.read(row), recipe, name)
        except BadImageError as error:
            if images.strict:
                raise _unusable_error(images.source.name, name, error) from None
            ids[place] = LEFT_OUT - row
            continue
        conversions.update(kinds)
        for res, image in zip(recipe.resolutions, found, strict=True):
            pixels[res][place] = image
    arrays = {f"images/{res}": images_of for res, images_of in pixels.items()}
    part.write_block(b, {**arrays, "labels": images.y[rows.start : rows.stop], "ids": ids})
    return conversions


def _unusable_error(source: str, name: str, error: BadImageError) -> BadInputError:
    return BadInputError(
        f"{source}: image {name} cannot be used: {error}",
        kept="no store was made",
        next="repair or remove it, or leave --strict away to skip such images",
    )


def fill_part(part: Part, path: Path, images: Images, workers: int, report: Report) -> Counter[str]:
    """Make the blocks that are missing; return how many images took which conversion.

    path: of the store, for the processes that join. Raises StoppedError when asked to stop, once
    the blocks in hand are written, or where a process died; what `write_block` raises;
    MemoryFloorError where one was killed.
    """
    missing, conversions = part.list_missing(), Counter[str]()
    what = f"prepare {part.name}"
    num = sum(len(part.list_rows(b)) for b in missing)
    with Stop() as stop, report.track(what, part.num, "images", part.num - num) as advance:
        made = (
            _write_with_processes(part, path, images, missing, workers, stop)
            if workers > 1 and len(missing) > 1
            else _write_alone(part, images, missing, stop)
        )
        for b, found in made:
            conversions.update(found)
            advance(len(part.list_rows(b)), "")
        if stop.asked:
            raise stop.error(describe_complete(part))
    return conversions


def _write_alone(
    part: Part, images: Images, missing: Sequence[int], stop: Stop
) -> Iterator[tuple[int, Counter[str]]]:
    keep_memory_of_images()
    for b in missing:
        if stop.asked:
            return
        yield b, write_block(part, b, images)


def _write_with_processes(
    part: Part, path: Path, images: Images, missing: Sequence[int], workers: int, stop: Stop
) -> Iterator[tuple[int, Counter[str]]]:
    """Yield (block, what happened) as they come; when asked to stop, those in hand only."""
    with hand_over(images) as handed:
        starts = _join, (path, part.name, handed)
        with start_processes(handed):
            pool = ProcessPoolExecutor(min(workers, len(missing)), mp.get_context("spawn"), *starts)
        yield from _decode_in_pool(pool, handed, missing, AHEAD * workers, stop)


def _decode_in_pool(
    pool: ProcessPoolExecutor,
    handed: Handover[Images],
    missing: Sequence[int],
    ahead: int,
    stop: Stop,
) -> Iterator[tuple[int, Counter[str]]]:
    todo = list(reversed(missing))
    running: dict[Future[Counter[str]], int] = {}
    started: dict[int, BaseProcess] = {}
    try:
        while running or (todo and not stop.asked):
            while todo and len(running) < ahead and not stop.asked:
                b = todo.pop()
                with start_processes(handed):  # one may be started here
                    running[_submit(pool, b)] = b
                started |= getattr(pool, "_processes", None) or {}  # of a broken pool, None
            done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                yield running.pop(future), future.result()
            if stop.asked:
                running = {future: b for future, b in running.items() if not future.cancel()}
    except BrokenProcessPool:
        started |= getattr(pool, "_processes", None) or {}
        raise _broken_error(_end(pool, [*started.values()])) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, b: int) -> Future[Counter[str]]:
    """Have block b written. Raises BrokenProcessPool also for a pool that breaks meanwhile."""
    try:
        return pool.submit(_write_block_of_worker, b)
    except OSError as error:
        if str(error) != "handle is closed":
            raise
        raise BrokenProcessPool from None


def _end(pool: ProcessPoolExecutor, processes: Sequence[BaseProcess]) -> list[int | None]:
    """End a broken pool, and return the exit codes of the processes that ended by themselves.

    One that was being started as another died hears nothing of it, and would be waited for.
    """
    here = [process for process in processes if process.exitcode is None]
    for process in here:
        process.kill()
    pool.shutdown(cancel_futures=True)
    killed = [process for process in here if process.exitcode == -signal.SIGKILL]
    return [process.exitcode for process in processes if process not in killed]


def _broken_error(exit_codes: Sequence[int | None]) -> MemoryFloorError | StoppedError:
    """Return the error of processes of which one ended too early; the others were asked to."""
    told = [code for code in exit_codes if code not in (None, 0, -signal.SIGTERM)]
    what, kept = "a process that decodes images", "finished blocks are kept"
    if told and -signal.SIGKILL not in told:
        return StoppedError(f"{what} died{name_cause(told[0])}", kept=kept, next=AGAIN)
    return MemoryFloorError(
        f"{what} was killed (out of memory?)",
        kept=kept,
        next="fewer --workers; the same command continues",
    )


_joined: dict[str, Any] = {}


def _join(path: Path, name: str, images: Handover[Images]) -> None:
    """Initialise a worker process: open the store, and end with the parent."""
    parent = mp.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    keep_memory_of_images()
    store = open_store(path, writable=True, shared=True)
    _joined.update(store=store, part=store.parts[cast(PartName, name)], images=images.take())


def _write_block_of_worker(b: int) -> Counter[str]:
    return write_block(_joined["part"], b, _joined["images"])
