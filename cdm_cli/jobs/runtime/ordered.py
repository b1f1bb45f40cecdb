"""Sums in the order of a balanced binary tree, which is the same however the parts are spread.

Of 2^k parts that lie in a row, 2^j neighbours whose first place is a multiple of 2^j are a branch
of the tree: who has them adds them up alone, and the sums of branches are added as parts are.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

Tensors = tuple[Tensor | None, ...]


def sum_in_order(parts: Iterator[Tensors], num: int) -> Tensors:
    """Return the sums of the next num parts, a power of two: (p_1 + p_2) + (p_3 + p_4), ….

    A part is read before the next is asked for, and may lie in the same memory; at most log2(num)
    sums are held beside it. A single part is returned as it is. None, where all parts have it,
    stays None.
    """
    if num == 1:
        return next(parts)
    first = sum_in_order(parts, num // 2)
    sums = copy_tensors(first) if num == 2 else first
    return add_tensors(sums, sum_in_order(parts, num // 2))


def copy_tensors(part: Tensors) -> Tensors:
    """Return tensors of their own."""
    return tuple(None if x is None else x.clone() for x in part)


def add_tensors(sums: Tensors, part: Tensors) -> Tensors:
    """Add a part to sums, in place."""
    own, new = ([x for x in tensors if x is not None] for tensors in (sums, part))
    torch._foreach_add_(own, new)  # pyright: ignore
    return sums
