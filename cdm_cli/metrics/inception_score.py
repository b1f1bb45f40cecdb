"""The Inception Score (Salimans et al. 2016): exp E[KL(p(y|x) || p(y))] over splits.

The score is the mean over ten splits and its uncertainty their standard deviation, as in
the literature; the splits are shuffled by the ids (see order.py), because a split must hold
all classes. Probabilities come from all outputs of the network: the 2015 Inception has
1008, without the bias of its last layer.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from cdm_cli.metrics.jackknife import MeanAndStd

NUM_SPLITS = 10


class SplitScores(NamedTuple):
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
        return SplitScores(*(sums.cpu() for sums in self))

    def without(self, groups: tuple[int, ...], num_splits: int) -> "SplitScores":
        """Add up S = num_splits * G sums, split by split, over all of G groups but these."""
        G = len(self.counts) // num_splits
        left = [group for group in range(G) if group not in groups]
        return SplitScores(*(t.unflatten(0, (num_splits, G))[:, left].sum(1) for t in self))

    def score(self) -> MeanAndStd:
        """Return mean and (population) standard deviation over the splits that hold samples."""
        counts = self.counts.clamp(min=1)
        p_y = self.marginal / counts[:, None]
        kl = self.negentropy / counts - torch.special.xlogy(p_y, p_y).sum(1)
        scores = kl.exp()[self.counts > 0]
        return MeanAndStd(float(scores.mean()), float(scores.std(correction=0)))
