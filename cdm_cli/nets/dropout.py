"""Dropout whose mask is a function of a seed and a place, so that a kernel makes it anew.

No mask is written to memory or read. The hash is lowbias32 (Wellons, "Prospecting for Hash
Functions", 2018; the constants of 2022) without its last step, which changes low bits alone,
and with a second key in its middle: masks of two seeds are not the same row of numbers from two
places on. Seeds are drawn, not counted: some that are alike give masks that are.
`nets.norm_tiles.kept` is the same function in Triton.
"""

import torch
from torch import Tensor

LOW = 2**32 - 1


def new_seed(device: torch.device) -> Tensor:
    """Draw a seed, int64 [1] in 0..2^62 - 1, from torch's default generator of a device."""
    return torch.randint(2**62, (1,), device=device)


def dropped(dropout: float) -> int:
    """Return how many of 2^32 hashes a probability in [0, 1) drops, the lowest ones."""
    return round(dropout * 2**32)


def kept(seed: Tensor, shape: torch.Size, dropout: float) -> Tensor:
    """Return what dropout multiplies by: 0, or 1 / (1 - dropout); float32 of a shape.

    The place of a number is its index in row-major order.
    """
    place = torch.arange(shape.numel(), device=seed.device).view(shape)
    bits = (place ^ seed) & LOW
    bits = ((bits ^ (bits >> 16)) * 0x21F0AAAD) & LOW
    bits ^= seed >> 32
    bits = ((bits ^ (bits >> 15)) * 0xD35A2D97) & LOW
    return (bits >= dropped(dropout)).float() / (1 - dropout)
