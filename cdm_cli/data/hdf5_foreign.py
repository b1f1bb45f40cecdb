"""Images in anybody's HDF5 file: read by libhdf5 in a child process, and unpacked.

What the child may do, and what it refuses, is in `hdf5_child`. Its answers are believed no more
than the file: a shape must be within limits, and as many bytes are taken as that shape has. A
child that is silent for two minutes is ended.
"""

import json
import math
import os
import select
import subprocess
import sys
import time
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from cdm_cli.data import disk, hdf5
from cdm_cli.data.archives import KEPT
from cdm_cli.data.arrays import MAX_LABEL_BYTES, ArraySource, require_classes
from cdm_cli.data.images import MAX_PIXELS, BadImageError
from cdm_cli.data.reading import open_regular, read_at
from cdm_cli.data.spool import write_spool
from cdm_cli.errors import BadInputError, CdmError, UnsafeInputError, UsageError
from cdm_cli.names import MOST_SAMPLES
from cdm_cli.units import format_count

CHILD = Path(__file__).with_name("hdf5_child.py")
SILENCE = 120.0  # seconds without an answer
ENDING = 5.0  # seconds in which it ends that has closed its pipe
LONGEST_FRAME = 2**24
SIGXCPU = 24
NEEDED = ("PATH", "PYTHON", "LD_", "LC_", "LANG", "OPENBLAS_")  # of the environment, nothing else
PLACES = (0, *(512 * 2**k for k in range(8)))  # of the signature, before which others may write
OURS = {"digest", "done", "ids", "labels"}  # datasets of a store of cdm


class Inside(NamedTuple):
    """Which datasets hold the images and, if it is named, their labels."""

    images: str
    labels: str | None = None


def find_inside(images: str | None, labels: Path | None) -> tuple[Inside | None, Path | None]:
    """Return what `--images` and `--labels` mean: datasets of an HDF5 file, or a table."""
    if images is None:
        return None, labels
    return Inside(images, None if labels is None else str(labels)), None


class AnswerFrame(NamedTuple):
    """One piece of an answer. kind: H head, I images, L labels, E error, or . for the end."""

    kind: bytes
    data: bytes


def is_hdf5(path: Path) -> bool:
    """Tell by the signature, which may stand behind a block of the user's. Raises as `read_at`."""
    with disk.hold_open(open_regular(path)) as fd:
        return any(read_at(fd, path, 8, place) == hdf5.SIGNATURE for place in PLACES)


def open_hdf5(path: Path, inside: Inside | None, spool: Path) -> ArraySource:
    """Unpack the images of an HDF5 file into spool, and return them as a source.

    Raises UsageError, which lists the datasets, where inside is None or names none of them;
    BadInputError, UnsafeInputError, DiskError.
    """
    inside = inside or Inside("")
    with _start_child(path, inside) as frames:
        N, *one = _read_shape(path, next(frames, AnswerFrame(b".", b"")))
        size = N * math.prod(one)
        disk.check_room(spool, size)
        pixels = _Pixels(path, frames, size)
        write_spool(pixels, spool)
        y = _read_labels(path, inside, pixels.labels, N)
    H, W, C = one
    return ArraySource(
        path.absolute().name, spool, 0, (H, W, C), np.arange(N), y, pixels.crc,
        called=(inside.images, inside.labels or ""),
    )  # fmt: skip


class _Pixels:
    """The bytes of the images, as they come; afterwards `crc` and the bytes of `labels`."""

    def __init__(self, path: Path, frames: Iterator[AnswerFrame], size: int) -> None:
        self._path, self._frames, self._size = path, frames, size
        self.crc, self.labels = 0, b""

    def __iter__(self) -> Iterator[bytes]:
        left, room, labels = self._size, MAX_LABEL_BYTES, list[bytes]()
        for kind, data in self._frames:
            if kind == b"I" and len(data) <= left:
                left -= len(data)
                self.crc = zlib.crc32(data, self.crc)
                yield data
            elif kind == b"L" and not left and 0 < len(data) <= room:
                room -= len(data)
                labels.append(data)
        self.labels = b"".join(labels)
        if left:
            raise BadInputError(f"{self._path}: the images end too early", kept=KEPT)


def _read_shape(path: Path, head: AnswerFrame) -> tuple[int, ...]:
    """Return N, H, W, C. Raises BadInputError."""
    found: Any = _parse_answer(path, head.data)
    if head.kind != b"H" or not isinstance(found, list) or len(cast(list[Any], found)) != 4:
        raise _broken_error(path, 0)
    N, H, W, C = map(int, cast(list[Any], found))
    if not (1 <= N <= MOST_SAMPLES and 1 <= C <= 4 and min(H, W) >= 1 and H * W <= MAX_PIXELS):
        raise BadInputError(f"{path} has images of {[N, H, W, C]}, up to 4 channels are", kept=KEPT)
    return N, H, W, C


def _read_labels(path: Path, inside: Inside, data: bytes, N: int) -> NDArray[np.int64] | None:
    if inside.labels is None:
        return None
    if len(data) != 8 * N:
        raise BadInputError(
            f"{path} has {format_count(len(data) // 8, 'label')} for {format_count(N, 'image')}",
            kept=KEPT,
        )
    try:
        return require_classes(np.frombuffer(data, np.int64), inside.labels)
    except BadImageError as error:
        raise BadInputError(f"{path}: {error}", kept=KEPT) from None


@contextmanager
def _start_child(path: Path, inside: Inside) -> Generator[Iterator[AnswerFrame]]:
    """Start the child, give its answers, and end it."""
    environment = {name: os.environ[name] for name in os.environ if name.startswith(NEEDED)}
    environment |= {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1"}
    with disk.hold_open(open_regular(path)) as fd:
        words = [str(fd), inside.images, inside.labels or ""]
        child = subprocess.Popen(
            [sys.executable, "-P", str(CHILD), *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            pass_fds=[fd], env=environment, start_new_session=True,
        )  # fmt: skip
    try:
        yield _read_frames(path, child)
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def _read_frames(path: Path, child: "subprocess.Popen[bytes]") -> Iterator[AnswerFrame]:
    """Yield answers up to the last one. Raises what the child reports, or what became of it."""
    assert child.stdout is not None
    pipe = child.stdout.fileno()
    while True:
        head = _read(path, pipe, 9)
        if len(head) < 9:
            raise _broken_error(path, _end(child))
        length = int.from_bytes(head[1:], "little")
        if length > LONGEST_FRAME:
            raise _broken_error(path, 0)
        data = _read(path, pipe, length)
        if len(data) < length:
            raise _broken_error(path, _end(child))
        frame = AnswerFrame(head[:1], data)
        if frame.kind == b"E":
            raise _refused_error(path, data)
        if frame.kind == b".":
            return
        yield frame


def _end(child: "subprocess.Popen[bytes]") -> int:
    """Wait for a child that has closed its pipe; return its exit code, 0 where it does not end."""
    with suppress(subprocess.TimeoutExpired):
        return child.wait(ENDING)
    return 0


def _read(path: Path, pipe: int, size: int) -> bytes:
    """Read size bytes, fewer only at the end; UnsafeInputError where none comes for SILENCE."""
    parts, left, last = list[bytes](), size, time.monotonic()
    while left:
        wait = max(0.0, last + SILENCE - time.monotonic())
        if not select.select([pipe], [], [], wait)[0]:
            raise _unsafe_error(path, f"nothing was read of it for {SILENCE:.0f} s")
        part = os.read(pipe, left)
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _parse_answer(path: Path, data: bytes) -> Any:
    """Parse an answer of the child. Raises UnsafeInputError for anything but JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise _broken_error(path, 0) from None


def _refused_error(path: Path, data: bytes) -> CdmError:
    """Return the error that the child reports."""
    kind, what, there = _parse_answer(path, data)
    if kind == "unsafe":
        return _unsafe_error(path, what)
    if kind == "bad":
        return BadInputError(f"{path}: {what}", kept=KEPT)
    names = [one.partition(" ")[0] for one in there]
    if not what and OURS <= {Path(name).name for name in names}:
        return UsageError(
            f"{path} is a store of cdm: there is nothing to prepare",
            kept=KEPT,
            next="cdm train --data, cdm eval and cdm grid take it as it is",
        )
    first = names[0] if names else "PATH"
    listed = "; ".join(there) or "no dataset of whole numbers"
    what = f"{path}: {what}; it has {listed}" if what else f"{path} is HDF5, and has {listed}"
    return UsageError(what, kept=KEPT, next=f"--images {first}")


def _broken_error(path: Path, code: int) -> CdmError:
    if code == -SIGXCPU:
        return _unsafe_error(path, "reading it takes too long for what it holds")
    return _unsafe_error(path, f"the HDF5 library broke down on it ({code})")


def _unsafe_error(path: Path, what: str) -> CdmError:
    return UnsafeInputError(f"{path}: {what}", kept=KEPT, next="ask who made it for another form")
