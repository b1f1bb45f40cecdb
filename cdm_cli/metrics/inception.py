"""clean-fid's Inception, from its own weights: features and probabilities in one pass.

The network is the TensorFlow graph of 2015 translated to TorchScript, the judge of nearly
every published FID. clean-fid keeps it in /tmp and returns features only; the same file
also holds the last layer, from which the Inception Score takes its probabilities without
the bias, as the original evaluation does. Files are only ever looked for, never fetched,
and never used unless their SHA-256 is the known one.
"""

import hashlib
import io
import platform
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cdm_cli.errors import BadInputError, MissingError, quote
from cdm_cli.metrics.arithmetic import use_full_float32
from cdm_cli.metrics.resize import resize_clean, resize_legacy_pytorch, to_channels
from cdm_cli.names import InceptionMode


class WeightsFile(NamedTuple):
    """A file of weights: where it comes from and what it must hash to."""

    name: str
    url: str
    sha256: str


TORCHSCRIPT = WeightsFile(
    "inception-2015-12-05.pt",
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
)
STATE_DICT = WeightsFile(
    "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
FILES: dict[InceptionMode, WeightsFile] = {
    "clean": TORCHSCRIPT,
    "legacy-tensorflow": TORCHSCRIPT,
    "legacy-pytorch": STATE_DICT,
}
RESIZES: dict[InceptionMode, str] = {
    "clean": "299×299 bicubic, antialiased, float32 (Pillow)",
    "legacy-tensorflow": "299×299 bilinear, not antialiased (TensorFlow 1 grid)",
    "legacy-pytorch": "299×299 bilinear, not antialiased (PyTorch grid)",
}
FEATURE_DIM = 2048


def list_weights_places(file: WeightsFile) -> list[Path]:
    """Return the paths at which clean-fid looks for a file of weights, in order."""
    temporary = Path("./" if platform.system() == "Windows" else "/tmp") / file.name
    hub = Path(torch.hub.get_dir()) / "checkpoints" / file.name
    return [temporary, hub] if file is TORCHSCRIPT else [hub]


def find_weights(file: WeightsFile) -> Path:
    """Return the first place that holds the file, or raise MissingError telling what to do."""
    looked = list_weights_places(file)
    for path in looked:
        if path.is_file():
            return path
    raise MissingError(
        f"Inception weights {file.name} not found (clean-fid looks at "
        f"{' and '.join(map(str, looked))})",
        kept="nothing was downloaded or written",
        next=f"bring {file.url} to {quote(looked[0])}, or judge with a classifier trained on your "
        "data: `cdm train features --preset classifier`, then `--features features`",
    )


def read_known_weights(file: WeightsFile, path: Path | None = None) -> bytes:
    """Return the bytes of a file of weights after checking its SHA-256.

    Raises MissingError if there is none, BadInputError if it is another file.
    """
    path = path or find_weights(file)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file", next=f"download {file.url}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise BadInputError(
            f"{path}: SHA-256 {found[:16]}… is not {file.sha256[:16]}…, "
            f"a broken download or another network ({len(content)} bytes)",
            next=f"replace it by {file.url}",
        )
    return content


def _load_torchscript(content: bytes, device: torch.device) -> nn.Module:
    with warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning):  # torch.jit is ageing, the file not ours
            warnings.simplefilter("ignore", kind)
        return torch.jit.load(io.BytesIO(content), map_location=device).eval()


def build_network() -> nn.Module:
    """Build the network of pytorch-fid, without weights: images in [-1, 1] to logits [B, 1008]."""
    import torchvision
    from cleanfid import inception_pytorch as fid

    net = torchvision.models.inception_v3(
        weights=None, num_classes=1008, aux_logits=False, init_weights=False
    )
    net.Mixed_5b = fid.FIDInceptionA(192, pool_features=32)
    net.Mixed_5c = fid.FIDInceptionA(256, pool_features=64)
    net.Mixed_5d = fid.FIDInceptionA(288, pool_features=64)
    for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        setattr(net, f"Mixed_{name}", fid.FIDInceptionC(768, channels_7x7=width))
    net.Mixed_7b = fid.FIDInceptionE_1(1280)
    net.Mixed_7c = fid.FIDInceptionE_2(2048)
    return net.eval()


def _load_state_dict(content: bytes, device: torch.device) -> nn.Module:
    net = build_network()
    net.load_state_dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    return net.to(device)


class InceptionExtractor:
    """Inception features [B, 2048] and probabilities [B, 1008] of uint8 images.

    mode: how images are enlarged to 299×299; "legacy-tensorflow" is that of the literature
    (and of the paper's numbers), "clean" that of clean-fid's default. weights: the file to
    use instead of the one that clean-fid would find; file: the name, origin and SHA-256
    that it must have. Raises MissingError or BadInputError as `read_known_weights`.
    """

    feature_dim = FEATURE_DIM

    def __init__(
        self,
        mode: InceptionMode = "clean",
        device: torch.device | str = "cpu",
        *,
        weights: Path | None = None,
        file: WeightsFile | None = None,
    ) -> None:
        file = file or FILES[mode]
        content = read_known_weights(file, weights)
        self.mode, self.device = mode, torch.device(device)
        self.name = f"inception-{mode}"
        self.digest = file.sha256
        self.resize = RESIZES[mode]
        load = _load_state_dict if mode == "legacy-pytorch" else _load_torchscript
        self._net: Any = load(content, self.device)
        self._head = self._take_head()

    def _take_head(self) -> Tensor:
        """Return the weights [K, D] of the last layer, and leave a network of features."""
        if self.mode != "legacy-pytorch":
            return self._net.output.weight.detach()
        head = self._net.fc.weight.detach()
        self._net.fc = nn.Identity()
        return head

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [B, 2048] and probabilities [B, K] of images uint8 [B, C, H, W]."""
        x = to_channels(images.to(self.device), 3)
        with use_full_float32():
            features = self._features(x).reshape(len(x), -1).float()
            return features, torch.softmax(features @ self._head.T, dim=1)

    def _features(self, x: Tensor) -> Tensor:
        if self.mode == "legacy-tensorflow":
            return self._net(x.float(), return_features=True)
        if self.mode == "clean":
            return self._net.layers(self._lay_out((resize_clean(x) - 128) / 128))
        return self._net(self._lay_out(2 * (resize_legacy_pytorch(x) / 255) - 1))

    def _lay_out(self, x: Tensor) -> Tensor:
        """Put channels last on a CPU, whose convolutions are 1.6 times as fast then."""
        return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x
