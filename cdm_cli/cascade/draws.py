"""Everything that is random in the loss of a training batch."""

from typing import NamedTuple

from torch import Tensor


class Draws(NamedTuple):
    """Everything random in the loss of one batch, so that its rows add up to the whole."""

    t: Tensor  # int64 [B], 1..T
    u: Tensor  # float64 [B], place within the segment of t (continuous noise only)
    eps: Tensor  # [B, C, H, W]
    flip: Tensor  # bool [B]
    s: Tensor | None  # int64 [B]
    eps_z: Tensor | None  # [B, C, h, w]
    sigma: Tensor | None  # [B], width of the blur
    blurred: Tensor | None  # bool [B]
