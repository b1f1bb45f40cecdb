"""How images reach the 299×299 pixels of Inception, exactly as clean-fid does it.

clean: Pillow's bicubic filter on float32 channels, never quantised, clipped to 0..255.
Written here as two matrix products with Pillow's own coefficients (ImagingResample: float64
sums, each pass stored as float32), so that a batch on any device gets Pillow's values.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

INCEPTION_SIZE = 299


def _bicubic(x: Tensor) -> Tensor:
    """Keys' cubic with a = -1/2; torch's own interpolation uses -3/4 unless it antialiases."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


@lru_cache(maxsize=32)
def bicubic_weights(size_in: int, size_out: int) -> Tensor:
    """Return Pillow's weights [size_out, size_in] of an antialiased bicubic resize, float64."""
    scale = size_in / size_out
    stretch = max(scale, 1.0)
    centre = (torch.arange(size_out, dtype=torch.float64) + 0.5)[:, None] * scale
    pixel = torch.arange(size_in, dtype=torch.float64)[None]
    first = (centre - 2 * stretch + 0.5).clamp(min=0).floor()
    last = (centre + 2 * stretch + 0.5).floor()
    weights = _bicubic((pixel - centre + 0.5) / stretch)
    weights = torch.where((pixel >= first) & (pixel < last), weights, torch.zeros_like(weights))
    return weights / weights.sum(1, keepdim=True)


def resize_clean(x: Tensor, size: int = INCEPTION_SIZE) -> Tensor:
    """Resize x [B, C, H, W], values 0..255, to float32 [B, C, size, size] within 0..255."""
    across = bicubic_weights(x.shape[3], size).to(x.device)
    down = bicubic_weights(x.shape[2], size).to(x.device)
    rows = (x.double() @ across.T).float()
    return (down @ rows.double()).float().clamp(0, 255)


def resize_legacy_pytorch(x: Tensor, size: int = INCEPTION_SIZE) -> Tensor:
    """Resize x [B, C, H, W] as pytorch-fid did, to float32: bilinear, not antialiased, clipped."""
    x = functional.interpolate(x.float(), size=(size, size), mode="bilinear", align_corners=False)
    return x.clamp(0, 255)


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Bring images [B, C, H, W] to 1 or 3 channels.

    Alpha (the last of 2 or 4) is dropped, grey is repeated, and colour becomes grey by the
    weights of ITU-R 601, as in Pillow. Equal channels are left alone.
    """
    if images.shape[1] == channels:
        return images
    colour = images[:, : 3 if images.shape[1] >= 3 else 1]
    if colour.shape[1] == channels:
        return colour
    if colour.shape[1] == 1:
        return colour.expand(-1, channels, -1, -1)
    red, green, blue = colour.to(torch.int32).unbind(1)
    grey = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return grey[:, None].to(images.dtype).expand(-1, channels, -1, -1)
