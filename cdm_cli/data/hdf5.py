"""The few pages of HDF5 that a store is made of, as a function from its contents to bytes.

What comes out is an ordinary HDF5 file (superblock 2, object headers 2) of groups with hard
links, contiguous datasets of fixed size, and fixed-length attributes of the root group. Every
program reads it through libhdf5; `cdm` itself never calls libhdf5, whose authors state that it
is not designed for malicious files, and which ends the process when a disk is full.

The bytes depend on the arguments alone. So a reader needs no parser: it takes the attributes
(`read_attributes`), lays the file out again, and compares. Whatever is not byte for byte the
same, links, filters, chunks, external storage and all that may yet be invented, is refused.

Source: HDF5 File Format Specification, version 3.0.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from cdm_cli.data.lookup3 import lookup3

SIGNATURE = b"\x89HDF\r\n\x1a\n"
SUPERBLOCK, ALIGNMENT = 48, 4096
FLAGS, SEAL = 11, SUPERBLOCK - 4  # places of the consistency flags and the checksum
OPEN_FLAGS = (0b001, 0b100, 0b101)  # of a file open for writing, or with readers meanwhile
HEADER_FRAME = 14  # signature, version, flags, size; checksum
UNDEFINED, SIZE_LIMIT = 2**64 - 1, 2**62
ATTRIBUTES_LIMIT = 2**22
ATTRIBUTE_LIMIT = 60_000  # the size of one header message is 16 bits
DATASPACE, LINK_INFO, DATATYPE, FILL, LINK, LAYOUT, GROUP_INFO, ATTRIBUTE = (
    0x01, 0x02, 0x03, 0x05, 0x06, 0x08, 0x0A, 0x0C,
)  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    """dtype: "u1", "i8", "f2", or "S5" for UTF-8 strings of 5 bytes."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return int(self.dtype[1:])

    @property
    def nbytes(self) -> int:
        """Bytes of the whole dataset."""
        return math.prod(self.shape) * self.itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry along the first axis."""
        return math.prod(self.shape[1:]) * self.itemsize


@dataclass(frozen=True)
class Layout:
    """The structural bytes of a file, where each dataset starts, and where the file ends."""

    header: bytes
    offsets: Mapping[str, int]
    size: int


def lay_out(attributes: Mapping[str, bytes], datasets: Mapping[str, Dataset]) -> Layout:
    """Lay out a file. datasets: "path/of/name" to Dataset, stored in this order, page-aligned.

    Raises ValueError for an attribute, or a file, that is larger than the format allows.
    """
    tree = _build_tree(datasets)
    unknown = dict.fromkeys((*tree, *datasets), 0)
    end = SUPERBLOCK
    addresses: dict[str, int] = {}
    for path, messages in _build_objects(attributes, datasets, tree, unknown, unknown).items():
        addresses[path] = end
        end += len(messages) + HEADER_FRAME
    offsets: dict[str, int] = {}
    for path, dataset in datasets.items():
        offsets[path] = -(-end // ALIGNMENT) * ALIGNMENT
        end = offsets[path] + dataset.nbytes
        if end > SIZE_LIMIT:
            raise ValueError(f"a file of more than {SIZE_LIMIT} bytes")
    objects = _build_objects(attributes, datasets, tree, addresses, offsets)
    header = _build_superblock(end) + b"".join(map(_build_object_header, objects.values()))
    return Layout(header, offsets, end)


def _build_tree(datasets: Mapping[str, Dataset]) -> dict[str, list[str]]:
    """Return the children of every group, the root "" first, groups before what is in them."""
    tree: dict[str, list[str]] = {"": []}
    for path in datasets:
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            child, parent = "/".join(parts[:depth]), "/".join(parts[: depth - 1])
            if depth < len(parts) and child in tree:
                continue
            tree[parent].append(child)
            if depth < len(parts):
                tree[child] = []
    return tree


def _build_objects(
    attributes: Mapping[str, bytes],
    datasets: Mapping[str, Dataset],
    tree: Mapping[str, list[str]],
    addresses: Mapping[str, int],
    offsets: Mapping[str, int],
) -> dict[str, bytes]:
    """Return the messages in the object header of each group, then of each dataset."""
    objects: dict[str, bytes] = {}
    for path, children in tree.items():
        inside = {child: addresses[child] for child in children}
        objects[path] = _build_group({} if path else attributes, inside)
    for path, dataset in datasets.items():
        objects[path] = _build_dataset(dataset, offsets[path])
    return objects


def _build_superblock(end: int) -> bytes:
    """Format version 2, addresses and lengths of 8 bytes, the root group right behind."""
    fields = struct.pack("<4B4Q", 2, 8, 8, 0, 0, UNDEFINED, end, SUPERBLOCK)
    return _seal(SIGNATURE + fields)


def _build_object_header(messages: bytes) -> bytes:
    return _seal(b"OHDR" + struct.pack("<BBI", 2, 2, len(messages)) + messages)


def _seal(block: bytes) -> bytes:
    return block + struct.pack("<I", lookup3(block))


def _build_message(kind: int, body: bytes) -> bytes:
    if len(body) >= 2**16:
        raise ValueError("a header message of more than 65535 bytes")
    return struct.pack("<BHB", kind, len(body), 0) + body


def _build_group(attributes: Mapping[str, bytes], children: Mapping[str, int]) -> bytes:
    """Return the messages of a group: attributes first, to be found without knowing the rest."""
    messages = [_build_message(ATTRIBUTE, _build_attribute(*item)) for item in attributes.items()]
    messages.append(_build_message(LINK_INFO, struct.pack("<2B2Q", 0, 0, UNDEFINED, UNDEFINED)))
    messages.append(_build_message(GROUP_INFO, bytes(2)))
    for path, address in children.items():
        name = path.rpartition("/")[2].encode()
        body = struct.pack("<3B", 1, 0, len(name)) + name + struct.pack("<Q", address)
        messages.append(_build_message(LINK, body))
    return b"".join(messages)


def _build_attribute(name: str, value: bytes) -> bytes:
    dtype, space = _build_datatype(f"S{len(value)}"), _build_dataspace(())
    key = name.encode() + b"\0"
    sizes = struct.pack("<2B3HB", 3, 0, len(key), len(dtype), len(space), 0)
    return sizes + key + dtype + space + value


def _build_dataset(dataset: Dataset, offset: int) -> bytes:
    """Contiguous, allocated early, never filled."""
    messages = (
        _build_message(DATASPACE, _build_dataspace(dataset.shape)),
        _build_message(DATATYPE, _build_datatype(dataset.dtype)),
        _build_message(FILL, bytes((3, 0b101))),
        _build_message(LAYOUT, struct.pack("<2B2Q", 3, 1, offset, dataset.nbytes)),
    )
    return b"".join(messages)


def _build_dataspace(shape: tuple[int, ...]) -> bytes:
    return struct.pack(f"<4B{len(shape)}Q", 2, len(shape), 0, 1 if shape else 0, *shape)


def _build_datatype(dtype: str) -> bytes:
    """Little-endian integers and half floats, null-padded UTF-8 strings."""
    kind, size = dtype[0], int(dtype[1:])
    if kind == "S":
        return struct.pack("<4BI", 0x13, 0x11, 0, 0, size)
    if kind == "f":  # sign at bit 15, exponent of 5 bits at 10, mantissa of 10 bits, bias 15
        return struct.pack("<4BI2H4BI", 0x11, 0x20, 15, 0, 2, 0, 16, 10, 5, 0, 10, 15)
    signed = 8 if kind == "i" else 0
    return struct.pack("<4BI2H", 0x10, signed, 0, 0, size, 0, 8 * size)


def was_left_open(header: bytes) -> bool:
    """Tell whether libhdf5 marked a file as open for writing, and sealed that mark.

    A program that is killed leaves it there; nothing else of the file tells of it.
    """
    block = header[:SEAL]
    return len(block) == SEAL and block[FLAGS] in OPEN_FLAGS and header.startswith(_seal(block))


def unmark(header: bytes) -> bytes:
    """Return the header of a file that was left open as it was before."""
    block = header[:FLAGS] + b"\0" + header[FLAGS + 1 : SEAL]
    return _seal(block) + header[SUPERBLOCK:]


def read_attributes(start: bytes) -> dict[str, bytes]:
    """Return the root attributes of a file that `lay_out` made, from its first bytes.

    Raises ValueError for anything else. They mean nothing until the layout was compared.
    """
    head = len(SIGNATURE)
    if start[:head] != SIGNATURE or len(start) < SUPERBLOCK + 10:
        raise ValueError("no HDF5 signature")
    if start[head : head + 4] != bytes((2, 8, 8, 0)) or start[36:44] != struct.pack(
        "<Q", SUPERBLOCK
    ):
        raise ValueError("another form of HDF5")
    kind, version, flags, size = struct.unpack_from("<4sBBI", start, SUPERBLOCK)
    if (kind, version, flags) != (b"OHDR", 2, 2) or size > ATTRIBUTES_LIMIT:
        raise ValueError("another form of HDF5")
    return _parse_attributes(start[SUPERBLOCK + 10 : SUPERBLOCK + 10 + size])


def _parse_attributes(block: bytes) -> dict[str, bytes]:
    attributes: dict[str, bytes] = {}
    place = 0
    while place + 4 <= len(block) and block[place] == ATTRIBUTE:
        (length,) = struct.unpack_from("<H", block, place + 1)
        body = block[place + 4 : place + 4 + length]
        if len(body) != length or length < 9:
            raise ValueError("an attribute is cut short")
        sizes = struct.unpack_from("<3H", body, 2)
        name = body[9 : 9 + sizes[0]].rstrip(b"\0")
        attributes[name.decode("ascii")] = body[9 + sum(sizes) :]
        place += 4 + length
    return attributes
