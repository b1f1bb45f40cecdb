"""What the U-Net makes of numbers: sinusoids and a small MLP (paper, Sections 2.3 and 3.2).

Shapes: t and s are float [B], in whatever scale the stage chose; embeddings are [B, dim].
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_PERIOD = 10_000.0


def embed_sinusoidally(t: Tensor, dim: int) -> Tensor:
    """Embed numbers by cosines, then sines, of geometric frequencies; float32 [B] -> [B, dim].

    Frequencies run from 1 towards 1 / 10000 (Ho et al. 2020, after Vaswani et al. 2017), so
    differences of about one unit are what the embedding resolves: alpha_bar and its root
    must be scaled up before they come here. An odd dim ends with a zero.
    """
    half = dim // 2
    k = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) / half * k)
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, dim % 2))


class NumberEmbedding(nn.Module):
    """Sinusoids followed by two layers: float [B] -> [B, dim] (Ho et al. 2020)."""

    def __init__(self, sinusoids: int, dim: int) -> None:
        super().__init__()
        self.sinusoids = sinusoids
        self.layer_1 = nn.Linear(sinusoids, dim)
        self.layer_2 = nn.Linear(dim, dim)

    def forward(self, t: Tensor) -> Tensor:
        """Return [B, dim] in the precision of the weights."""
        sinusoids = embed_sinusoidally(t, self.sinusoids).to(self.layer_1.weight.dtype)
        return self.layer_2(F.silu(self.layer_1(sinusoids)))
