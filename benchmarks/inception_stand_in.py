"""Random weights of the real Inception architecture, in the files that each package reads.

The same numbers stand in both files: `inception-2015-12-05.pt`, TorchScript with `layers` and
`output` as clean-fid and cdm read it, and the state dict of pytorch-fid, torch-fidelity and
torchmetrics. Nothing is downloaded.
"""

import hashlib
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from cdm_cli.metrics.inception import STATE_DICT, TORCHSCRIPT, WeightsFile, build_network

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.metrics.stand_in import StandIn

STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1",
        "Conv2d_4a_3x3", "maxpool2")  # fmt: skip
MIXED = tuple(f"Mixed_{name}" for name in "5b 5c 5d 6a 6b 6c 6d 6e 7a 7b 7c".split())
LOGIT_SPREAD = 40.0  # so that the Inception Score of noise is a few, not 1


class Files(NamedTuple):
    """Both files of weights; `what` says whether they are random."""

    torchscript: Path
    state_dict: Path
    what: str

    def pinned(self, path: Path) -> WeightsFile:
        """Return what cdm checks a file by: its own digest."""
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return WeightsFile(path.name, "", digest)


def random_network(seed: int = 0) -> nn.Module:
    """Return the network with weights that keep activations of order one at every layer."""
    net = build_network()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)  # pyright: ignore[reportOptionalMemberAccess]
                module.running_var.uniform_(0.8, 1.2)  # pyright: ignore[reportOptionalMemberAccess]
        nn.init.normal_(cast(nn.Linear, net.fc).weight, std=LOGIT_SPREAD / 2048**0.5)
    return net


def as_torchscript(net: nn.Module) -> torch.jit.ScriptModule:
    """Return the same network with the interface of inception-2015-12-05.pt."""
    layers = [getattr(net, name) for name in (*STEM, *MIXED)]
    module: Any = StandIn()
    module.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module.output = net.fc
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(module.eval())


def weights(folder: Path, given: Path | None) -> Files:
    """Return the files of a directory that holds the real ones, or write random ones."""
    if given is not None:
        files = Files(given / TORCHSCRIPT.name, given / STATE_DICT.name, "the published weights")
        missing = [path.name for path in files[:2] if not path.is_file()]
        if missing:
            sys.exit(
                f"{given} lacks {', '.join(missing)}; from {TORCHSCRIPT.url}, {STATE_DICT.url}"
            )
        return files
    net = random_network()
    files = Files(folder / TORCHSCRIPT.name, folder / STATE_DICT.name, "random weights")
    as_torchscript(net).save(str(files.torchscript))
    torch.save(net.state_dict(), files.state_dict)
    return files
