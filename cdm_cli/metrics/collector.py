"""Everything that one pass over images leaves behind, in flat memory.

Moments and class sums are kept for each of ten splits, so that the whole, and the whole
without one split (the jackknife), are sums of what is there. Features themselves are kept
for a fixed, class-balanced choice of samples only. Every field is a sum over samples, so
processes that saw different samples join by adding (`tensors`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cdm_cli.metrics.frechet import Gaussian, Moments
from cdm_cli.metrics.inception_score import NUM_SPLITS, Score, SplitScores
from cdm_cli.metrics.order import balanced_choice, split_of

KEEP = 10_000


@dataclass
class Collector:
    """Statistics of N images with the given ids and labels, [N] each, seen in any order."""

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    splits: NDArray[np.int64]
    slots: NDArray[np.int64]
    moments: list[Moments]
    kept: Tensor
    kept_places: NDArray[np.int64]
    scores: SplitScores | None = None
    called: Tensor | None = None

    @classmethod
    def empty(
        cls,
        ids: NDArray[np.int64],
        labels: NDArray[np.int64],
        feature_dim: int,
        *,
        device: torch.device | str = "cpu",
        keep: int = KEEP,
        num_splits: int = NUM_SPLITS,
        seed: int = 0,
    ) -> "Collector":
        """Prepare for N images; features of at most `keep` of them are kept."""
        places = balanced_choice(ids, labels, keep, seed)
        slots = np.full(len(ids), -1)
        slots[places] = np.arange(len(places))
        return cls(
            ids=ids,
            labels=labels,
            splits=split_of(ids, num_splits, seed),
            slots=slots,
            moments=[Moments.zeros(feature_dim, device) for _ in range(num_splits)],
            kept=torch.zeros(len(places), feature_dim, device=device),
            kept_places=places,
        )

    def add(
        self, places: NDArray[np.int64], features: Tensor, probabilities: Tensor | None
    ) -> None:
        """Take features [B, D] and probabilities [B, K] of the images at places [B]."""
        device = features.device
        splits, slots = self.splits[places], self.slots[places]
        for split in np.unique(splits).tolist():
            self.moments[split].add(features[_rows(splits == split, device)])
        self.kept[torch.from_numpy(slots[slots >= 0]).to(device)] = features[
            _rows(slots >= 0, device)
        ]
        if probabilities is not None:
            self._judge(places, torch.from_numpy(splits).to(device), probabilities)

    def _judge(self, places: NDArray[np.int64], splits: Tensor, probabilities: Tensor) -> None:
        K, device = probabilities.shape[1], probabilities.device
        if self.scores is None:
            self.scores = SplitScores.empty(len(self.moments), K, device)
            self.called = torch.zeros(len(self.moments), dtype=torch.float64, device=device)
        assert self.called is not None
        self.scores.add(probabilities, splits)
        y = torch.from_numpy(self.labels[places]).to(device)
        self.called.index_add_(0, splits, (probabilities.argmax(1) == y).double())

    def tensors(self) -> list[Tensor]:
        """Return every sum, to be added up over processes in place."""
        sums = [tensor for m in self.moments for tensor in (m.count, m.total, m.outer)]
        if self.scores is not None and self.called is not None:
            s = self.scores
            sums += [s.counts, s.marginal, s.negentropy, self.called]
        return [*sums, self.kept]

    @property
    def whole(self) -> Moments:
        """The moments of all splits together."""
        whole = Moments.zeros(len(self.moments[0].total), self.moments[0].total.device)
        for part in self.moments:
            whole.merge(part)
        return whole

    def accuracy(self) -> Score | None:
        """Return how many images were called by their label, with its standard error."""
        if self.called is None:
            return None
        share = float(self.called.sum()) / len(self.ids)
        return Score(share, (share * (1 - share) / len(self.ids)) ** 0.5)

    def frechet(self, reference: Gaussian, *, uncertain: bool = True) -> "Estimate":
        """Return the Fréchet distance to a reference, with its jackknife standard error.

        The jackknife leaves out one split at a time (Tukey 1958): no sample counts twice, so
        unlike a bootstrap it needs no features, and memory stays flat in N.
        """
        whole = self.whole
        value = whole.gaussian().distance(reference)
        if not uncertain or whole.num - max(part.num for part in self.moments) < 2:
            return Estimate(value)
        parts = (whole.without(part) for part in self.moments)
        return Estimate(value, tuple(part.gaussian().distance(reference) for part in parts))


@dataclass(frozen=True)
class Estimate:
    """A number, and what it would be without each of the splits; empty where that is not known."""

    value: float
    without: tuple[float, ...] = ()

    @property
    def error(self) -> float | None:
        """The standard error of the jackknife, where there is one."""
        G = len(self.without)
        return float(np.sqrt((G - 1) * np.var(self.without))) if G else None

    def minus(self, other: "Estimate") -> "Estimate":
        """Return the difference of two numbers of the same samples: what they share cancels."""
        pairs = zip(self.without, other.without, strict=True)
        return Estimate(self.value - other.value, tuple(mine - theirs for mine, theirs in pairs))


def _rows(mask: NDArray[np.bool_], device: torch.device) -> Tensor:
    return torch.from_numpy(np.flatnonzero(mask)).to(device)
