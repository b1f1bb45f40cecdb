"""What is in a store, under which names, and where: one format for prepared data and samples.

    /                         attributes: schema, kind, contents, provenance (JSON)
    ├── classes               names, UTF-8 [K]
    ├── writer                who is writing at the moment, JSON
    ├── images/<res>          uint8 [N, res, res, C]
    ├── labels, ids           int64 [N]
    ├── z/<s>                 float16 [N, h, w, C]
    ├── done                  uint8 [blocks], 1 once a block is complete
    └── digest                uint8 [blocks, 32], SHA-256 of the place and bytes of a block

Prepared data has everything below `writer` under `train/` and, where it has such a part, once more
under `val/`. The attribute `contents` says all of it, and from it alone the whole structure of the
file can be laid out again: that is how a file is vetted (guard.py).
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from cdm_cli.data.hdf5 import ATTRIBUTE_LIMIT, Dataset, Layout, lay_out
from cdm_cli.names import MOST_CLASSES, MOST_RESOLUTION, MOST_SAMPLES

SCHEMA = "cdm-store/1"
BLOCK_LIMIT = 2**30
BLOCKS_LIMIT = 2**20
CLASSES_LIMIT = 2**25
WRITER_SIZE = 512
DIGEST_SIZE = 32
CLASS_NAME_LIMIT = 4096

Resolution = Annotated[int, Field(ge=1, le=MOST_RESOLUTION)]
Channels = Annotated[int, Field(ge=1, le=4)]
Kind = Literal["prepared", "samples"]
PartName = Literal["", "train", "val"]
STRICT: Any = {"extra": "forbid"}


@dataclass(frozen=True, config=STRICT)
class PartSpec:
    """num samples; resolutions: {res: channels}; z: {s: (h, w, channels)}."""

    num: Annotated[int, Field(ge=1, le=MOST_SAMPLES)]
    resolutions: dict[Resolution, Channels]
    z: dict[Annotated[int, Field(ge=0, le=10**6)], tuple[Resolution, Resolution, Channels]] = Field(
        default_factory=dict
    )


@dataclass(frozen=True)
class StoreSpec:
    """Everything that is fixed when a store is created.

    parts: {"": …}, {"train": …} or {"train": …, "val": …}. provenance: what JSON can hold; its
    "identity" is what must be equal for another run to continue this store, all of it where it has
    none.
    """

    kind: Kind
    parts: dict[PartName, PartSpec]
    classes: Sequence[str]
    provenance: dict[str, Any]
    block_size: Annotated[int, Field(ge=1, le=2**20)] = 1024


@dataclass(frozen=True, config=STRICT)
class Contents:
    """The attribute `contents`: all that the layout of a store depends on."""

    block_size: Annotated[int, Field(ge=1, le=2**20)]
    classes: Annotated[int, Field(ge=0, le=MOST_CLASSES)]
    class_bytes: Annotated[int, Field(ge=1, le=CLASS_NAME_LIMIT)]
    class_sha256: str
    parts: dict[PartName, PartSpec]

    def encode(self) -> bytes:
        """Return the attribute's JSON, the same bytes for the same contents."""
        values = CONTENTS.dump_python(self, mode="json")
        return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()


CONTENTS = TypeAdapter(Contents)


def count_blocks(num: int, block_size: int) -> int:
    """Return the number of blocks; the last may be short."""
    return -(-num // block_size)


def list_members(spec: PartSpec) -> dict[str, Dataset]:
    """Return the datasets whose rows make up a part's blocks, in the order of hashing."""
    num = spec.num
    members = {"ids": Dataset("i8", (num,))}
    for res, channels in sorted(spec.resolutions.items()):
        members[f"images/{res}"] = Dataset("u1", (num, res, res, channels))
    members["labels"] = Dataset("i8", (num,))
    for s, shape in sorted(spec.z.items()):
        members[f"z/{s}"] = Dataset("f2", (num, *shape))
    return members


def list_tables(blocks: int) -> dict[str, Dataset]:
    """Return the datasets that hold a done flag and a digest for each block."""
    return {"done": Dataset("u1", (blocks,)), "digest": Dataset("u1", (blocks, DIGEST_SIZE))}


def count_block_bytes(spec: PartSpec, block_size: int) -> int:
    """Return the bytes of one full block of a part."""
    rows = min(block_size, spec.num)
    return rows * sum(member.row_bytes for member in list_members(spec).values())


def fit_block_size(parts: Mapping[Any, PartSpec], limit: int = 2**28) -> int:
    """Return the largest power of two, up to 1024, of rows whose block has at most `limit` bytes.

    It is 1 where one row is larger.
    """
    largest = max(count_block_bytes(spec, 1) for spec in parts.values())
    return 2 ** max(0, min(10, int(math.log2(max(1, limit // largest)))))


def join_path(part: str, name: str) -> str:
    """Return the path of a member in the file: "train/labels", or "labels" where the part is ""."""
    return f"{part}/{name}" if part else name


def lay_out_store(attributes: Mapping[str, bytes], contents: Contents) -> Layout:
    """Lay out a store. Raises ValueError for one that is larger than any reader allows."""
    check_size(contents)
    datasets = {"writer": Dataset(f"S{WRITER_SIZE}", ())}
    if contents.classes:
        datasets["classes"] = Dataset(f"S{contents.class_bytes}", (contents.classes,))
    for part, spec in sorted(contents.parts.items()):
        members = list_tables(count_blocks(spec.num, contents.block_size)) | list_members(spec)
        datasets.update({join_path(part, name): member for name, member in members.items()})
    return lay_out(attributes, datasets)


def check_size(contents: Contents) -> None:
    """Raise ValueError for parts of other names or without images, and for what is too large.

    Limits: the class names together, the bytes of a block, and the number of blocks of a part.
    """
    if set(contents.parts) not in ({""}, {"train"}, {"train", "val"}):
        raise ValueError(f"parts {sorted(contents.parts)}")
    if contents.classes * contents.class_bytes > CLASSES_LIMIT:
        raise ValueError(f"the class names are longer than {CLASSES_LIMIT} bytes")
    for spec in contents.parts.values():
        if not spec.resolutions:
            raise ValueError("a part without images")
        if count_block_bytes(spec, contents.block_size) > BLOCK_LIMIT:
            raise ValueError(f"a block has more than {BLOCK_LIMIT} bytes")
        if count_blocks(spec.num, contents.block_size) > BLOCKS_LIMIT:
            raise ValueError(f"there are more than {BLOCKS_LIMIT} blocks")


def pack_classes(names: Sequence[str]) -> tuple[bytes, int]:
    """Return the names as equally long UTF-8 strings, and that length.

    Raises ValueError for a name that cannot be stored so.
    """
    encoded = [name.encode() for name in names]
    width = max((len(name) for name in encoded), default=1) or 1
    if width > CLASS_NAME_LIMIT or any(name.endswith(b"\0") for name in encoded):
        raise ValueError(f"a class name is longer than {CLASS_NAME_LIMIT} bytes or ends in NUL")
    return b"".join(name.ljust(width, b"\0") for name in encoded), width


def unpack_classes(packed: bytes, width: int) -> tuple[str, ...]:
    """Return the names that `pack_classes` packed."""
    places = range(0, len(packed), width)
    return tuple(packed[place : place + width].rstrip(b"\0").decode() for place in places)


def make_contents(spec: StoreSpec) -> Contents:
    """Return the attribute `contents` of a store to be made."""
    packed, width = pack_classes(spec.classes)
    return Contents(
        block_size=spec.block_size,
        classes=len(spec.classes),
        class_bytes=width,
        class_sha256=hashlib.sha256(packed).hexdigest(),
        parts=spec.parts,
    )


def make_attributes(spec: StoreSpec) -> dict[str, bytes]:
    """Return the root attributes of a store to be made.

    A provenance too long for one attribute is continued in provenance_2, provenance_3, ….
    """
    provenance = json.dumps(
        spec.provenance, sort_keys=True, allow_nan=False, separators=(",", ":")
    ).encode()
    attributes = {
        "schema": SCHEMA.encode(),
        "kind": spec.kind.encode(),
        "contents": make_contents(spec).encode(),
    }
    for number, start in enumerate(range(0, len(provenance), ATTRIBUTE_LIMIT), 1):
        name = "provenance" if number == 1 else f"provenance_{number}"
        attributes[name] = provenance[start : start + ATTRIBUTE_LIMIT]
    return attributes


def join_provenance(attributes: Mapping[str, bytes]) -> bytes:
    """Return the provenance that root attributes hold, as the JSON it was written as."""
    return b"".join(value for name, value in attributes.items() if name.startswith("provenance"))
