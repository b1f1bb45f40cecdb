"""How many images of each class a classifier calls right: arrays in, numbers out.

K >= 2 classes; `tested` and `right` are int64 [K]. An accuracy is a share of images, and its
uncertainty the standard error of that share, sqrt(p (1 - p) / N).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cdm_cli.metrics.comparisons import ALIKE
from cdm_cli.metrics.jackknife import MeanAndStd, measure_share
from cdm_cli.metrics.verdicts import LEVEL

Counts = NDArray[np.int64]
TOP = 5


def list_tops(num_classes: int) -> tuple[int, int]:
    """Return the two k of top-1 and top-5: of fewer than five classes, all of them."""
    return 1, min(TOP, num_classes)


@dataclass
class ClassAccuracy:
    """Counts of tested images [K], and for each k of `list_tops` of those that are right.

    An image is right at k if its class is among the k of the largest logits.
    """

    num_classes: int
    tested: Counts = field(init=False)
    right: dict[int, Counts] = field(init=False)

    def __post_init__(self) -> None:
        self.tested = np.zeros(self.num_classes, np.int64)
        self.right = {k: np.zeros(self.num_classes, np.int64) for k in list_tops(self.num_classes)}

    @classmethod
    def of(cls, tested: Sequence[int], right: Sequence[Sequence[int]]) -> "ClassAccuracy":
        """Take counts that were made before; tested: [K], right: [2][K], for the two k."""
        made = cls(len(tested))
        made.tested = np.asarray(tested, np.int64)
        rows = zip(list_tops(len(tested)), right, strict=True)
        made.right = {k: np.asarray(row, np.int64) for k, row in rows}
        return made

    def add(self, logits: Tensor, y: Tensor) -> None:
        """Count logits [B, K] of images of classes y [B]."""
        first = logits.topk(max(self.right), dim=1).indices == y[:, None]
        labels = y.cpu().numpy()
        np.add.at(self.tested, labels, 1)
        for k, right in self.right.items():
            hit = first[:, :k].any(dim=1).cpu().numpy()
            np.add.at(right, labels[hit], 1)

    def tensor(self) -> Tensor:
        """Return all counts, float64 [3, K], to be added up over processes."""
        rows = [self.tested, *(self.right[k] for k in list_tops(self.num_classes))]
        return torch.from_numpy(np.stack(rows).astype(np.float64))

    def share(self, k: int) -> MeanAndStd:
        """Return the top-k accuracy over all tested images; 0 where none was tested."""
        return measure_share(int(self.right[k].sum()), int(self.tested.sum()))

    def list_by_class(self, k: int) -> NDArray[np.float64]:
        """Return the top-k accuracy of each class [K], NaN where no image of it was tested."""
        with np.errstate(invalid="ignore"):
            return self.right[k] / self.tested


def measure_gains(samples: ClassAccuracy, real: ClassAccuracy) -> NDArray[np.float64]:
    """Return what each class [K] gains in top-1 by training on samples instead of real images."""
    return samples.list_by_class(1) - real.list_by_class(1)


def measure_gain_errors(samples: ClassAccuracy, real: ClassAccuracy) -> NDArray[np.float64]:
    """Return the binomial standard error of each gain [K], the two classifiers taken apart."""
    p, q = samples.list_by_class(1), real.list_by_class(1)
    with np.errstate(invalid="ignore"):
        return np.sqrt(p * (1 - p) / samples.tested + q * (1 - q) / real.tested)


def compare_classes(samples: ClassAccuracy, real: ClassAccuracy, level: float = LEVEL) -> list[str]:
    """Return whether each class gains by samples: "better", "worse", "not told apart", of K.

    Fisher's exact test of the right and wrong answers, and Holm (1979) for all classes at once:
    any class is called better or worse that is not with a probability of `level` at most. ""
    where no image was tested. The two trainings are taken as they are.
    """
    gained = measure_gains(samples, real)
    places = np.flatnonzero(np.isfinite(gained)).tolist()
    p = np.array([_test_class(samples, real, place) for place in places])
    said = ["" if np.isnan(gain) else ALIKE for gain in gained]
    for left, at in zip(range(len(p), 0, -1), np.argsort(p, kind="stable"), strict=True):
        if p[at] * left > level:
            break
        said[places[at]] = "better" if gained[places[at]] > 0 else "worse"
    return said


def _test_class(samples: ClassAccuracy, real: ClassAccuracy, y: int) -> float:
    from scipy.stats import fisher_exact  # half a second, of those who compare classes

    rows = [[one.right[1][y], one.tested[y] - one.right[1][y]] for one in (samples, real)]
    found: Any = fisher_exact(rows)
    return float(found.pvalue)
