"""Bob Jenkins's hash lookup3, with which HDF5 seals its metadata."""

import struct


def lookup3(data: bytes) -> int:
    """Return hashlittle of data with initial value 0, 32 bits (lookup3.c, May 2006)."""
    mask = 0xFFFFFFFF
    a = b = c = (0xDEADBEEF + len(data)) & mask
    if not data:
        return c
    last = (len(data) - 1) // 12 * 12
    for x, y, z in struct.iter_unpack("<3I", data[:last]):
        a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
        for shifts in ((4, 6, 8), (16, 19, 4)):
            a = ((a - c) ^ _rotate(c, shifts[0])) & mask
            c = (c + b) & mask
            b = ((b - a) ^ _rotate(a, shifts[1])) & mask
            a = (a + c) & mask
            c = ((c - b) ^ _rotate(b, shifts[2])) & mask
            b = (b + a) & mask
    x, y, z = struct.unpack("<3I", data[last:].ljust(12, b"\0"))
    a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
    for shift_1, shift_2, shift_3 in ((14, 11, 25), (16, 4, 14)):
        c = ((c ^ b) - _rotate(b, shift_1)) & mask
        a = ((a ^ c) - _rotate(c, shift_2)) & mask
        b = ((b ^ a) - _rotate(a, shift_3)) & mask
    return ((c ^ b) - _rotate(b, 24)) & mask


def _rotate(value: int, count: int) -> int:
    return ((value << count) | (value >> (32 - count))) & 0xFFFFFFFF
