"""A program of its own that reads one dataset of anybody's HDF5 file, within limits.

It is started by `hdf5_foreign` with the file open, and answers in frames on stdout. libhdf5 is not
made for hostile files. So once the file is open nothing else can be opened, no file can be written,
and memory and time are limited. And what would make it look elsewhere (links, external and virtual
storage, filters of plugins) or work without end (chunks and datasets larger than what is stored)
is refused before a value is read.
"""

import json
import math
import os
import resource
import sys
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

library: Any = h5py  # its low level has no types, and loads nothing more when it is used
h5d, h5f, h5g, h5l, h5o = library.h5d, library.h5f, library.h5g, library.h5l, library.h5o
h5p, h5s, h5t, h5z = library.h5p, library.h5s, library.h5t, library.h5z

MEMORY = 2**30  # beyond what the libraries take
SECONDS, BYTES_A_SECOND = 60, 2**21  # of a processor
CHUNK, SLAB, STEP = 2**26, 2**29, 2**24  # bytes of a chunk, of whole chunks of rows, of one read
INFLATED = 1032  # bytes of a byte, at most, by deflate
LABEL_BYTES, MOST_CHUNKS = 2**27, 2**22
LISTED, VISITED = 8, 1000
FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32, h5z.FILTER_LZF}
PACKING = {h5z.FILTER_DEFLATE, h5z.FILTER_LZF}
LAYOUTS = {h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED}
SPARE = 2**14  # bytes by which filters make an incompressible chunk longer, at most


class RefusedError(Exception):
    """Why nothing is read. kind: "usage", "bad" or "unsafe"."""

    def __init__(self, kind: str, what: str, there: tuple[str, ...] = ()) -> None:
        super().__init__(what)
        self.kind, self.there = kind, there


def main(fd: int, images: str, labels: str) -> None:
    """Answer with a head, the images as uint8 and the labels as int64, or with why not.

    fd: the file, open for reading. images, labels: paths of datasets; no images: list them.
    """
    try:
        size = os.fstat(fd).st_size
        root = _open_root(fd)
        if not images:
            raise RefusedError("usage", "", _list_datasets(root))
        pixels = _find_dataset(root, images, size)
        y = _find_dataset(root, labels, size) if labels else None
        _answer(pixels, y, images, labels)
    except RefusedError as refused:
        _put(b"E", json.dumps([refused.kind, str(refused), refused.there]).encode())
    except MemoryError:
        _put(b"E", json.dumps(["unsafe", f"it needs more than {MEMORY >> 20} MiB", []]).encode())
    except Exception as error:  # the library meets any bytes
        _put(b"E", json.dumps(["bad", f"{type(error).__name__}: {error}"[:500], []]).encode())


def _open_root(fd: int) -> Any:
    """Open the file and return its root group; from here on no other file can be opened.

    Nothing can be written, and memory and time are limited.
    """
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    _limit(resource.RLIMIT_AS, mapped + MEMORY)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, resource.RLIM_INFINITY))
    os.close(free := os.open(os.devnull, os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, free + 1))  # one more
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fapl_sec2()
    file = h5f.open(f"/proc/self/fd/{fd}".encode(), h5f.ACC_RDONLY, fapl=access)
    _limit(resource.RLIMIT_NOFILE, 0)
    return h5g.open(file, b"/")


def _limit(what: int, most: int) -> None:
    resource.setrlimit(what, (most, most))


def _find_dataset(root: Any, path: str, size: int) -> Any:
    """Find a dataset by hard links alone, and check all that its header says."""
    at = root
    for name in filter(None, path.split("/")):
        if name == "." or not isinstance(at, h5g.GroupID) or not at.links.exists(name.encode()):
            raise RefusedError("usage", f"it has no dataset {path}", _list_datasets(root))
        if at.links.get_info(name.encode()).type != h5l.TYPE_HARD:
            raise RefusedError("unsafe", f"{path}: {name} is a link, which may lead elsewhere")
        at = h5o.open(at, name.encode())
    if not isinstance(at, h5d.DatasetID):
        raise RefusedError("usage", f"{path} is no dataset", _list_datasets(root))
    _check_storage(at, path, size)
    return at


def _check_storage(dataset: Any, path: str, size: int) -> None:
    """Refuse what is not stored in this file as it says. size: of the file."""
    plan, kind = dataset.get_create_plist(), dataset.get_type()
    if plan.get_layout() not in LAYOUTS or plan.get_external_count():
        raise RefusedError("unsafe", f"{path} is stored in other files, or made of other datasets")
    if kind.get_class() not in (h5t.INTEGER, h5t.FLOAT):
        raise RefusedError("unsafe", f"{path} holds no plain numbers")
    if dataset.get_space().get_simple_extent_type() != h5s.SIMPLE or 0 in dataset.shape:
        raise RefusedError("bad", f"{path} holds nothing")
    item, wanted = kind.get_size(), math.prod(dataset.shape) * kind.get_size()
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    if {*filters} - FILTERS:
        raise RefusedError("unsafe", f"{path} needs filters beyond gzip, lzf and checksums")
    most = size * INFLATED if filters else size
    if wanted > most or dataset.get_storage_size() > size:
        raise RefusedError("unsafe", f"{path} claims {wanted} bytes, the file has {size}")
    if plan.get_layout() == h5d.CHUNKED:
        _check_chunks(dataset, path, item, size, filters)
    elif dataset.get_storage_size() < wanted:
        raise RefusedError("bad", f"{path} was never written")


def _check_chunks(dataset: Any, path: str, item: int, size: int, filters: list[int]) -> None:
    """Refuse chunks that are too large, too many, not written, or that are not what they say."""
    shape, chunk = dataset.shape, dataset.get_create_plist().get_chunk()
    raw = math.prod(chunk) * item
    expected = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    slab = chunk[0] * math.prod(shape[1:]) * item
    if raw > CHUNK or slab > SLAB or expected > MOST_CHUNKS:
        raise RefusedError(
            "unsafe",
            f"{path} has {expected} chunks of {list(chunk)}, one of {raw} bytes; up to {CHUNK} "
            f"are read, {MOST_CHUNKS} of them, {SLAB} side by side (h5repack stores it otherwise)",
        )
    seen = 0

    def look(info: Any) -> None:
        nonlocal seen
        seen += 1
        active = {kind for i, kind in enumerate(filters) if not info.filter_mask >> i & 1}
        least = 1 if active & PACKING else raw
        fits = least <= info.size <= (raw + SPARE if active else raw)
        if not fits or info.byte_offset + info.size > size:
            raise RefusedError("unsafe", f"{path} has a chunk that cannot be: {info}")

    dataset.chunk_iter(look)
    if seen != expected:
        raise RefusedError("bad", f"{path} has only {seen} of its {expected} chunks")


def _answer(pixels: Any, y: Any, images: str, labels: str) -> None:
    """Send everything. Raises RefusedError for what are no images, or no labels of theirs."""
    shape, dtype = tuple(pixels.shape), pixels.dtype
    told = f"{images} is {dtype} {list(shape)}"
    axes = _find_axes(shape)
    if dtype != np.uint8 or axes is None:
        raise RefusedError("bad", f"{told}, expected uint8 [N, H, W, C], [N, C, H, W] or [N, H, W]")
    if y is not None and (y.shape[0] != shape[0] or math.prod(y.shape) != shape[0]):
        raise RefusedError("bad", f"{told}, {labels} is {list(y.shape)}: expected one each")
    if y is not None and (y.dtype.kind not in "iu" or 8 * shape[0] > LABEL_BYTES):
        raise RefusedError("bad", f"{labels} is {y.dtype} {list(y.shape)}, expected whole numbers")
    seconds = SECONDS + math.prod(shape) // BYTES_A_SECOND
    _limit(resource.RLIMIT_CPU, seconds)
    whole = shape if len(shape) == 4 else (*shape, 1)
    _put(b"H", json.dumps([whole[axis] for axis in axes]).encode())
    at_once = max(1, STEP // math.prod(whole[1:]))
    for rows in _read_rows(pixels, h5t.NATIVE_UINT8, np.uint8):
        turned = rows.reshape(-1, *whole[1:]).transpose(axes)
        for at in range(0, len(turned), at_once):
            _put(b"I", np.ascontiguousarray(turned[at : at + at_once]))
    for rows in _read_rows(y, h5t.NATIVE_INT64, np.int64) if y is not None else ():
        _put(b"L", rows)
    _put(b".", b"")


def _find_axes(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return which axes are N, H, W, C; None where the shape has none."""
    if len(shape) == 3 or (len(shape) == 4 and shape[3] <= 4):
        return (0, 1, 2, 3)
    return (0, 2, 3, 1) if len(shape) == 4 and shape[1] <= 4 else None


def _read_rows(dataset: Any, kind: Any, dtype: Any) -> Iterator[Any]:
    """Read a dataset by rows, every chunk once."""
    N, *one = dataset.shape
    plan, row = dataset.get_create_plist(), max(1, math.prod(one) * np.dtype(dtype).itemsize)
    whole = plan.get_chunk()[0] if plan.get_layout() == h5d.CHUNKED else 1
    step = whole * max(1, STEP // (whole * row))
    space = dataset.get_space()
    for start in range(0, N, step):
        count = (min(step, N - start), *one)
        space.select_hyperslab((start, *(0 for _ in one)), count)
        rows = np.empty(count, dtype)
        dataset.read(h5s.create_simple(count), space, rows, kind)
        yield rows


def _list_datasets(root: Any) -> tuple[str, ...]:
    """Return datasets of whole numbers that hard links lead to, what may be images first."""
    waiting, seen, found = [("", root)], set[Any](), list[tuple[bool, str]]()
    while waiting and len(found) < LISTED and len(seen) < VISITED:
        above, group = waiting.pop(0)
        for name in list(group)[:VISITED]:
            if group.links.get_info(name).type != h5l.TYPE_HARD:
                continue
            where = f"{above}/{name.decode('utf-8', 'replace')}".lstrip("/")
            one = h5o.open(group, name)
            mark = h5o.get_info(one).addr
            if isinstance(one, h5g.GroupID) and mark not in seen:
                waiting.append((where, one))
            elif isinstance(one, h5d.DatasetID) and one.get_type().get_class() == h5t.INTEGER:
                fits = one.dtype == np.uint8 and len(one.shape) in (3, 4)
                found.append((not fits, f"{where} {one.dtype} {list(one.shape)}"))
            seen.add(mark)
    return tuple(told for _, told in sorted(found)[:LISTED])


def _put(kind: bytes, data: Any) -> None:
    """Write frames: a letter, a length of eight bytes, and so many bytes, STEP at most."""
    view = memoryview(data).cast("B")
    for at in range(0, len(view) or 1, STEP):
        part = view[at : at + STEP]
        sys.stdout.buffer.write(kind + len(part).to_bytes(8, "little"))
        sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
