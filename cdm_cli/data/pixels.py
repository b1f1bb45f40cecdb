"""The only conversion between uint8 0..255 in files and float in [-1, 1] in a network.

x / 127.5 - 1, and back by rounding.
"""

from torch import Tensor


def to_uint8(x: Tensor) -> Tensor:
    """Round float images in [-1, 1] to uint8 0..255; what lies outside is clamped."""
    return x.float().add(1).mul(127.5).round().clamp(0, 255).byte()


def from_uint8(x: Tensor) -> Tensor:
    """Map uint8 images 0..255 to float32 in [-1, 1]."""
    return x.float().div(127.5).sub(1)


def move_channels_last(x: Tensor) -> Tensor:
    """Move the channels of images: [..., C, H, W] -> [..., H, W, C], contiguous."""
    return x.movedim(-3, -1).contiguous()
