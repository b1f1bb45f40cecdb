"""Dropout whose mask is a function of a seed and a place, so that a kernel makes it anew.

No mask is written to memory or read. The hash is triple32 (Wellons, "Prospecting for Hash
Functions", 2018) without its last step, which changes low bits alone; the seed joins after the
first product, so that masks of two seeds are not the same numbers some places apart. (With one
product less, places some rows of an image apart were correlated.) `dropout_mask` in `norm_tiles` is
the same function in Triton.
"""

import torch
from torch import Tensor

LOW = 2**32 - 1


def new_seed(device: torch.device) -> Tensor:
    """Draw a seed, int64 [1] in 0..2^32 - 1, from torch's default generator of a device."""
    return torch.randint(2**32, (1,), device=device)


def threshold(dropout: float) -> int:
    """Return the hash, of 2^32, below which a probability in [0, 1) drops."""
    return round(dropout * 2**32)


def dropout_mask(seed: Tensor, shape: torch.Size, dropout: float) -> Tensor:
    """Return what dropout multiplies by: 0, or 1 / (1 - dropout); float32 of a shape.

    The place of a number is its index in row-major order.
    """
    place = torch.arange(shape.numel(), device=seed.device).view(shape)
    bits = place & LOW
    bits = (((bits ^ (bits >> 17)) * 0xED5AD4BB) & LOW) ^ seed
    bits = ((bits ^ (bits >> 11)) * 0xAC4C1B51) & LOW
    bits = ((bits ^ (bits >> 15)) * 0x31848BAB) & LOW
    return (bits >= threshold(dropout)).float() / (1 - dropout)
