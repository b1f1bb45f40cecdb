"""A trained classifier: the judge that `cdm eval` takes where Inception knows nothing."""

from collections.abc import Sequence

from torch import Tensor, nn

from cdm_cli.config import ClassifierConfig
from cdm_cli.nets.classifier import Classifier


class ClassifierStage(nn.Module):
    """A trained classifier: images [B, C, H, W] in [-1, 1] -> (features [B, D], logits [B, K])."""

    def __init__(
        self,
        config: ClassifierConfig,
        classes: Sequence[str],
        net: Classifier,
        *,
        name: str = "",
        digest: str = "",
    ) -> None:
        super().__init__()
        self.config, self.classes, self.net = config, tuple(classes), net
        self.name, self.digest = name, digest

    @property
    def resolution(self) -> int:
        """The height and width, in pixels, of the images it was trained on."""
        return self.config.resolution

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [B, D] and logits [B, K]."""
        return self.net(x)
