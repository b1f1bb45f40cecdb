"""A tiny TorchScript module with the interface of inception-2015-12-05.pt, and its file."""

import hashlib
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdm_cli.metrics.inception import WeightsFile


class Layers(nn.Module):
    """[B, 3, 299, 299] in [-1, 1] -> [B, 2048], as positive as pooled activations are."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(23)  # 299 = 13 * 23
        self.mix = nn.Linear(3 * 169, 2048)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.mix(self.pool(x).flatten(1)))


class StandIn(nn.Module):
    """`layers`, `output` and a forward that resizes on the grid of TensorFlow 1."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()
        self.output = nn.Linear(2048, 1008)

    def forward(
        self,
        img: Tensor,
        return_features: bool = False,
        use_fp16: bool = False,
        no_output_bias: bool = False,
    ) -> Tensor:
        batch, channels = img.shape[0], img.shape[1]
        theta = torch.eye(2, 3, device=img.device)
        theta[0, 2] += theta[0, 0] / img.shape[3] - theta[0, 0] / 299
        theta[1, 2] += theta[1, 1] / img.shape[2] - theta[1, 1] / 299
        theta = theta.to(img.dtype).unsqueeze(0).repeat([batch, 1, 1])
        grid = functional.affine_grid(theta, [batch, channels, 299, 299], align_corners=False)
        x = functional.grid_sample(
            img, grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        features = self.layers((x - 128) / 128).reshape(-1, 2048)
        if return_features:
            return features
        if no_output_bias:
            return torch.softmax(functional.linear(features, self.output.weight), dim=1)
        return torch.softmax(self.output(features), dim=1)


def save_stand_in(folder: Path) -> WeightsFile:
    """Write a stand-in under the file name that clean-fid expects; return what to check it by."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = StandIn().eval()
    path = folder / "inception-2015-12-05.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return WeightsFile(path.name, "https://example.org/inception.pt", digest)
