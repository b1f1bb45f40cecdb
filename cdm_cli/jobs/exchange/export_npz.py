"""An .npz as ADM's evaluation reads it: arr_0 uint8 [N, H, W, C] and arr_1 int64 [N], streamed.

It appears whole or not at all. The comment of the archive, which no reader of arrays looks at,
holds the identity of the export, so that the same command finds it done.
"""

import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from cdm_cli.data import disk, durable, renaming
from cdm_cli.data.reading import open_regular
from cdm_cli.errors import CdmError
from cdm_cli.jobs.exchange.export_plan import ExportSelection
from cdm_cli.jobs.runtime.identity import other_job_error
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.report import Report


class Stream(io.RawIOBase):
    """An open file as `zipfile` writes to one; every write goes through `data/disk.py`."""

    def __init__(self, fd: int, path: Path) -> None:
        super().__init__()
        self._fd, self._path, self._place, self._end = fd, path, 0, 0

    def write(self, data: Any) -> int:
        """Write at the place."""
        view = memoryview(data).cast("B")
        disk.pwrite_all(self._fd, self._path, view, self._place)
        self._place += len(view)
        self._end = max(self._end, self._place)
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the place, from the start or the end."""
        self._place = offset + (self._end if whence == os.SEEK_END else 0)
        return self._place

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def seekable(self) -> bool:
        """Whether `seek` works."""
        return True


def write_npz(selection: ExportSelection, out: Path, report: Report) -> int:
    """Write the images and labels; return how many, 0 where out is this file already.

    Raises WouldOverwriteError for another file of that name, StoppedError, DiskError.
    """
    comment = json.dumps(selection.identity, sort_keys=True).encode()
    taken = f"{out} exists, and is not this export"
    if os.path.lexists(out):
        if _read_comment(out) != comment:
            raise other_job_error(out, taken)
        report.say(f"{out} is there already")
        return 0
    with durable.make_partial(out) as (fd, temporary):
        with zipfile.ZipFile(Stream(fd, temporary), "w") as archive:
            labels = _write_images(archive, selection, report)
            _write_array(archive, "arr_1.npy", labels.shape, "<i8", iter([labels]))
            archive.comment = comment
        disk.sync(fd, temporary)
        try:
            renaming.rename_new(temporary, out)
        except renaming.ExistsError:
            if _read_comment(out) != comment:
                raise other_job_error(out, taken) from None
            disk.unlink(temporary)  # another process made the same
    return len(selection.rows)


def _read_comment(path: Path) -> bytes:
    try:
        with os.fdopen(open_regular(path), "rb") as file, zipfile.ZipFile(file) as archive:
            return archive.comment
    except (CdmError, OSError, zipfile.BadZipFile):
        return b""


def _write_images(
    archive: zipfile.ZipFile, selection: ExportSelection, report: Report
) -> np.ndarray:
    """Write arr_0 block by block; return the labels [N]."""
    N, side = len(selection.rows), selection.resolution
    labels = np.empty(N, np.int64)

    def read_blocks() -> Iterator[np.ndarray]:
        with Stop() as stop, report.track("export", N, "images") as advance:
            for batch in selection.read_batches():
                if stop.asked:
                    kept = "nothing was written: an .npz appears whole"
                    raise stop.error(kept, next="the same command starts over")
                labels[batch.first : batch.first + len(batch.labels)] = batch.labels
                yield batch.images
                advance(len(batch.images), "")

    shape = (N, side, side, selection.channels)
    _write_array(archive, "arr_0.npy", shape, "|u1", read_blocks())
    return labels


def _write_array(
    archive: zipfile.ZipFile,
    name: str,
    shape: tuple[int, ...],
    descr: str,
    pieces: Iterator[np.ndarray],
) -> None:
    """Write pieces as one array in C order. The same contents give the same bytes, at any date."""
    member = zipfile.ZipInfo(name)
    with archive.open(member, "w", force_zip64=True) as file:
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data)
