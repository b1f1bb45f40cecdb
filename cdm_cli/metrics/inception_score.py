"""The Inception Score (Salimans et al. 2016): exp E[KL(p(y|x) || p(y))] over splits.

The score is the mean over ten splits and its uncertainty their standard deviation, as in
the literature; the splits are shuffled by the ids (see order.py), because a split must hold
all classes. Probabilities come from all outputs of the network: the 2015 Inception has
1008, without the bias of its last layer.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cdm_cli.metrics.order import split_of

NUM_SPLITS = 10


class MeanAndStd(NamedTuple):
    """A mean, and a standard deviation: over splits or subsets, or of the mean itself.

    IS and KID have the first; accuracies and scores of neighbours the second, a standard error.
    """

    mean: float
    std: float


@dataclass
class SplitScores:
    """Streaming scores of several splits: [S, K] and [S] sums in float64."""

    counts: Tensor
    marginal: Tensor
    negentropy: Tensor

    @classmethod
    def empty(cls, num_splits: int, num_classes: int, device: torch.device) -> "SplitScores":
        """Start with nothing seen."""
        shapes = ((num_splits,), (num_splits, num_classes), (num_splits,))
        return cls(*(torch.zeros(s, dtype=torch.float64, device=device) for s in shapes))

    def add(self, probabilities: Tensor, splits: Tensor) -> None:
        """Add probabilities [B, K], of which each belongs to a split [B]."""
        p = probabilities.double()
        splits = splits.to(p.device)
        self.counts.index_add_(0, splits, torch.ones_like(p[:, 0]))
        self.marginal.index_add_(0, splits, p)
        self.negentropy.index_add_(0, splits, torch.special.xlogy(p, p).sum(1))

    def to_host(self) -> "SplitScores":
        """Return the same sums in the memory of the host."""
        return SplitScores(self.counts.cpu(), self.marginal.cpu(), self.negentropy.cpu())

    def without(self, groups: tuple[int, ...], num_splits: int) -> "SplitScores":
        """Add up S = num_splits * G sums, split by split, over all of G groups but these."""
        G = len(self.counts) // num_splits
        left = [group for group in range(G) if group not in groups]
        sums = (self.counts, self.marginal, self.negentropy)
        return SplitScores(*(t.unflatten(0, (num_splits, G))[:, left].sum(1) for t in sums))

    def score(self) -> MeanAndStd:
        """Return mean and (population) standard deviation over the splits that hold samples."""
        counts = self.counts.clamp(min=1)
        p_y = self.marginal / counts[:, None]
        kl = self.negentropy / counts - torch.special.xlogy(p_y, p_y).sum(1)
        scores = kl.exp()[self.counts > 0]
        return MeanAndStd(float(scores.mean()), float(scores.std(correction=0)))


def inception_score(
    probabilities: Tensor,
    ids: NDArray[np.int64] | None = None,
    *,
    num_splits: int = NUM_SPLITS,
    seed: int = 0,
) -> MeanAndStd:
    """Return mean and standard deviation of the score over splits of probabilities [N, K].

    ids: [N], which alone decide about the splits; None: 0..N-1.
    Raises ValueError with fewer than two samples for each split.
    """
    num = len(probabilities)
    if num < 2 * num_splits:
        raise ValueError(f"{num} samples are too few for {num_splits} splits")
    splits = split_of(np.arange(num) if ids is None else ids, num_splits, seed)
    scores = SplitScores.empty(num_splits, probabilities.shape[1], probabilities.device)
    scores.add(probabilities, torch.from_numpy(splits))
    return scores.score()
