"""What the loss of a stage is computed from: a training batch, and everything drawn for it."""

from typing import NamedTuple, Protocol

from torch import Tensor


class Batch(Protocol):
    """What the loss needs of a training batch: uint8 images and labels."""

    @property
    def x_0(self) -> Tensor:
        """uint8 [B, C, H, W]."""
        ...

    @property
    def z_0(self) -> Tensor | None:
        """uint8 [B, C, h, w], for a super-resolution stage."""
        ...

    @property
    def y(self) -> Tensor:
        """Class labels, int64 [B]."""
        ...


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
