"""Noise as a function of (seed, stage, sample id, step) alone: Philox4x32-10 and Box-Muller.

A counter-based generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3")
has no state to carry: sample i draws the same noise at any batch size, order of work and
number of processes, and after any interruption. The integers are bit-identical on every
device; normals agree to the rounding of log, sin and cos.

Words are unsigned 32-bit values held in int64, which wraps as the product of two words needs.
"""

import hashlib
import math

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def key(seed: int, stage: str) -> int:
    """Return the 64-bit key of a seed and a stage name (any text), by SHA-256."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{stage}".encode()).digest()[:8], "little")


def uniform_u32(key: int, counter: Words) -> Words:
    """Philox4x32-10: four random words for each counter of four words.

    counter: int64 within 0..2^32 - 1, of shapes that broadcast; key: 64 bits, low word first.
    Returned words have the broadcast shape.
    """
    c0, c1, c2, c3 = counter
    for i in range(ROUNDS):
        k0, k1 = (key + i * WEYL[0]) & MASK, ((key >> 32) + i * WEYL[1]) & MASK
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0 = ((p1 >> 32) ^ c1).bitwise_xor_(k0).bitwise_and_(MASK)
        c2 = ((p0 >> 32) ^ c3).bitwise_xor_(k1).bitwise_and_(MASK)
        c1, c3 = p1.bitwise_and_(MASK), p0.bitwise_and_(MASK)
    return c0, c1, c2, c3


def box_muller(radius: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Turn two words into two independent standard normals, float32.

    The radius comes from (word + 1) / 2^32 in (0, 1], so its logarithm is finite and normals
    reach 6.66; the angle from 24 bits, which float32 holds exactly.
    """
    r = (radius + 1).float().mul_(2.0**-32).log_().mul_(-2).sqrt_()
    theta = (angle >> 8).float().mul_(2 * math.pi * 2.0**-24)
    return theta.cos().mul_(r), theta.sin().mul_(r)


def words(key: int, ids: Tensor, step: int, num: int) -> Words:
    """Return num times four random words for each id at one step, int64 [B, num] each.

    ids: int64 [B], any 64-bit values; step within 0..2^32 - 1.
    """
    block = torch.arange(num, device=ids.device)[None]
    id_low, id_high = (ids & MASK)[:, None], (ids >> 32 & MASK)[:, None]
    return uniform_u32(key, (block, torch.full_like(block, step), id_low, id_high))


def draw_normals(key: int, ids: Tensor, step: int, num: int) -> Tensor:
    """Return num standard normals for each id at one step, float32 [B, num]."""
    w0, w1, w2, w3 = words(key, ids, step, (num + 3) // 4)
    return torch.cat([*box_muller(w0, w1), *box_muller(w2, w3)], 1)[:, :num]


def draw_integers(key: int, ids: Tensor, sizes: Tensor) -> Tensor:
    """Draw one integer within 0..size - 1 for each id and each of sizes [K]; int64 [B, K].

    sizes are at most 2^31, and far fewer than 2^32 if no value may be noticeably favoured.
    """
    return words(key, ids, 0, len(sizes))[0] * sizes.to(ids.device) >> 32


class Noise:
    """The noise of one batch of samples at one stage: call it as `randn_like`.

    ids: int64 [B], the samples' ids. Each call draws the next step, starting at step 0.
    """

    def __init__(self, seed: int, stage: str, ids: Tensor) -> None:
        self.key, self.ids, self.step = key(seed, stage), ids, 0

    def __call__(self, x: Tensor) -> Tensor:
        """Return standard normals like x [B, ...]. Raises ValueError if B is not len(ids)."""
        if len(x) != len(self.ids):
            raise ValueError(f"{len(x)} images, but noise for {len(self.ids)} ids")
        self.ids = self.ids.to(x.device)
        values = draw_normals(self.key, self.ids, self.step, x[0].numel())
        self.step += 1
        return values.reshape(x.shape).to(x.dtype)

    def skip_to(self, step: int) -> None:
        """Let the next call draw this step (resuming a chain in its middle)."""
        self.step = step
