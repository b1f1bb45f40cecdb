"""Tensors in files: safetensors that carry the SHA-256 of their own contents.

The format alone notices 9 of 500 flipped bytes, so `make_head` puts a digest over all the
rest into its metadata, and `read_weights` accepts nothing without it. A file is checked
against what the model expects, and against its own size, before memory is set aside for it.
Nothing is ever mapped: a file that is cut short later cannot hurt a running program.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from cdm_cli.cascade.files import open_regular_file
from cdm_cli.cascade.head import NOT_READ, damage_error, parse_header, read_exactly, read_head
from cdm_cli.errors import BadInputError, MismatchError

DTYPES = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64, "U8": torch.uint8}
PIECE = 2**24  # bytes of tensors that are read, hashed and written at a time
Bytes = bytes | bytearray | memoryview
CODES = {dtype: code for code, dtype in DTYPES.items()}


@dataclass(frozen=True)
class LoadedWeights:
    """What a file of tensors holds. digest: over names, dtypes, shapes, bytes and metadata."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    digest: str


@dataclass(frozen=True)
class FileHead:
    """The first bytes of a file of tensors, and the SHA-256 and size of the whole file."""

    data: bytes
    sha256: str
    size: int


def make_head(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> FileHead:
    """Return the head of a safetensors file, whose metadata hold the digest of all the rest.

    Tensors are read in pieces, twice, and may be on a device.
    """
    entries = _list_entries(tensors)
    notes = dict(metadata or {})
    notes["sha256"] = _digest(entries, notes, iterate_bytes(tensors))
    data = _pack_head(entries, notes)
    whole = _hash([data], iterate_bytes(tensors))
    return FileHead(data, whole, len(data) + _count_bytes(entries))


def measure_head(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> int:
    """Return the size in bytes of the head, without reading a tensor."""
    return len(_pack_head(_list_entries(tensors), {**metadata, "sha256": "0" * 64}))


def iterate_bytes(tensors: Mapping[str, Tensor]) -> Iterator[memoryview]:
    """Yield the bytes of all tensors in the order of a file, at most PIECE at a time.

    A piece is valid until the next one: small tensors, and those of a device, share a buffer.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    buffer, full = torch.empty(min(PIECE, size), dtype=torch.uint8), 0
    view = _view_bytes(buffer)
    for name in sorted(tensors):
        flat = tensors[name].detach().contiguous().reshape(-1).view(torch.uint8)
        if flat.device.type == "cpu" and len(flat) >= PIECE // 16:
            if full:
                yield view[:full]
                full = 0
            whole = _view_bytes(flat)
            yield from (whole[start : start + PIECE] for start in range(0, len(whole), PIECE))
            continue
        while len(flat):
            part, flat = flat.split([n := min(len(flat), len(view) - full), len(flat) - n])
            buffer[full : full + n].copy_(part)
            full += n
            if full == len(view):
                yield view
                full = 0
    if full:
        yield view[:full]


def _view_bytes(tensor: Tensor) -> memoryview:
    return memoryview(cast(Any, tensor.numpy()))


def _list_entries(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what the head says of each tensor: dtype, shape and place."""
    entries: dict[str, Any] = {}
    end = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end],
        }  # fmt: skip
    return entries


def _count_bytes(entries: Mapping[str, Any]) -> int:
    return max((entry["data_offsets"][1] for entry in entries.values()), default=0)


def _pack_head(entries: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    header = json.dumps({"__metadata__": dict(metadata), **entries}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def _digest(
    entries: Mapping[str, Any], metadata: Mapping[str, str], chunks: Iterable[Bytes]
) -> str:
    notes = {key: value for key, value in metadata.items() if key != "sha256"}
    return _hash([json.dumps([entries, notes], sort_keys=True).encode()], chunks)


def _hash(*parts: Iterable[Bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in itertools.chain(*parts):
        digest.update(chunk)
    return digest.hexdigest()


def read_weights(
    path: Path, expected: Mapping[str, Tensor], *, sha256: str | None = None
) -> LoadedWeights:
    """Read a file of exactly the expected names, dtypes and shapes (tensors may be meta).

    It is in memory once; digests and the check for finite numbers are computed side by side.
    sha256: of the whole file, where a manifest promises one. Raises MissingError,
    BadInputError for a damaged file and MismatchError where the tensors are not those of
    the model.
    """
    with open_regular_file(path) as file:
        head = read_head(file, path)
        entries, metadata = parse_header(head[8:], path)
        check_tensor_names(path, entries, expected)
        total = _check_entries(path, entries, expected)
        data = read_exactly(file, total, path)
        if file.read(1):
            raise damage_error(path, "it goes on behind its last tensor")
    tensors = {name: _view_tensor(data, entry) for name, entry in entries.items()}
    with ThreadPoolExecutor(3) as pool:
        digest = pool.submit(_digest, entries, metadata, [data])
        whole = pool.submit(_hash, [head, data]) if sha256 is not None else None
        finite = pool.submit(_check_finite, path, tensors)
        if digest.result() != metadata.get("sha256"):
            raise damage_error(path, "its SHA-256 does not fit its contents")
        if whole is not None and whole.result() != sha256:
            raise damage_error(path, "its SHA-256 is not that of the manifest")
        finite.result()
    return LoadedWeights(tensors, metadata, digest.result())


def check_tensor_names(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise MismatchError naming the first tensors that are missing or too many."""
    if odd := describe_odd_names(found.keys(), expected.keys()):
        raise MismatchError(
            f"{path} is not of this model: of its {len(expected)} tensors it {odd}",
            kept=NOT_READ,
            next="compare stage.json with the weights",
        )


def describe_odd_names(found: Set[str], expected: Set[str]) -> str:
    """Return "lacks 2 (a, b) and has 1 too many (c)", the first by name; "" for the same names."""
    missing, extra = sorted(expected - found), sorted(found - expected)
    told = [f"lacks {len(missing)} ({', '.join(missing[:3])})"] if missing else []
    told += [f"has {len(extra)} too many ({', '.join(extra[:3])})"] if extra else []
    return " and ".join(told)


def _check_entries(path: Path, entries: Mapping[str, Any], expected: Mapping[str, Tensor]) -> int:
    """Check dtype, shape and place of every tensor; return the number of bytes of all."""
    spans: list[tuple[int, int]] = []
    for name, tensor in expected.items():
        entry = entries[name] if isinstance(entries[name], dict) else {}
        wanted = (CODES[tensor.dtype], list(tensor.shape))
        found = (entry.get("dtype"), entry.get("shape"))
        if found != wanted:
            raise MismatchError(
                f"{path}: tensor {name} is {found[0]} {found[1]}, the model has "
                f"{wanted[0]} {wanted[1]}",
                kept=NOT_READ,
                next="compare stage.json with the weights",
            )
        span: Any = entry.get("data_offsets")
        ends = span if isinstance(span, list) else []
        size = tensor.numel() * tensor.element_size()
        if [type(end) for end in ends] != [int, int] or ends[1] != ends[0] + size:
            raise damage_error(path, f"tensor {name} does not fill its place")
        spans.append((ends[0], ends[1]))
    spans.sort()
    bounds = [0, *(end for _, end in spans)]
    if [start for start, _ in spans] != bounds[:-1]:
        raise damage_error(path, "its tensors overlap or leave gaps")
    return bounds[-1]


def _view_tensor(data: bytearray, entry: Mapping[str, Any]) -> Tensor:
    start, end = entry["data_offsets"]
    dtype = DTYPES[entry["dtype"]]
    if start == end:
        return torch.empty(entry["shape"], dtype=dtype)
    if start % dtype.itemsize:  # a view must be aligned
        return torch.frombuffer(bytearray(data[start:end]), dtype=dtype).reshape(entry["shape"])
    count = (end - start) // dtype.itemsize
    return torch.frombuffer(data, dtype=dtype, count=count, offset=start).reshape(entry["shape"])


def _check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise BadInputError(
                f"{path}: tensor {name} has entries that are not finite",
                kept=NOT_READ,
                next="restore the file, or take an earlier checkpoint",
            )
