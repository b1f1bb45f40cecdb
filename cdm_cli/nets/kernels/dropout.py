"""Dropout whose mask is a function of a seed and a place, so that a kernel makes it anew.

No mask is written to memory or read. The hash is triple32 (Wellons, "Prospecting for Hash
Functions", 2018) without its last step, which changes low bits alone; the seed joins after the
first product, so that masks of two seeds are not the same numbers some places apart. (With one
product less, places some rows of an image apart were correlated.) `dropout_mask` in `norm_tiles` is
the same function in Triton.
"""

import torch
from torch import Tensor

SEEDS = 2**32


def new_seed(device: torch.device) -> Tensor:
    """Draw a seed, int64 [1] in 0..2^32 - 1, from torch's default generator of a device."""
    return torch.randint(SEEDS, (1,), device=device)


def threshold(dropout: float) -> int:
    """Return the hash, of 2^32, below which a probability in [0, 1) drops."""
    return round(dropout * 2**32)


def dropout_mask(seed: Tensor, shape: torch.Size, dropout: float) -> Tensor:
    """Return what dropout multiplies by: 0, or 1 / (1 - dropout); float32 of a shape [B, ...].

    seed: int64 [B] in 0..2^32 - 1, one for each image, or [1] for all of them. The place of a
    number is its index in row-major order within what its seed is for.
    """
    place = torch.arange(shape.numel() // len(seed), device=seed.device, dtype=torch.int32)
    start = (place ^ _shift_right(place, 17)).mul_(_word(0xED5AD4BB))
    bits = start[None] ^ torch.where(seed < 2**31, seed, seed - 2**32).int()[:, None]
    bits.bitwise_xor_(_shift_right(bits, 11)).mul_(_word(0xAC4C1B51))
    bits.bitwise_xor_(_shift_right(bits, 15)).mul_(_word(0x31848BAB))
    unsigned = bits.bitwise_xor_(-(2**31))  # in the order of unsigned numbers
    return (unsigned >= threshold(dropout) - 2**31).view(shape).float().div_(1 - dropout)


def _word(number: int) -> int:
    """Return the int32 of the same bits: its products are the same, and quick on a CPU."""
    return number - 2**32 if number >= 2**31 else number


def _shift_right(words: Tensor, bits: int) -> Tensor:
    """Shift unsigned words to the right."""
    return (words >> bits).bitwise_and_(2 ** (32 - bits) - 1)
