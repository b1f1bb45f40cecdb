"""Everything that one pass over images leaves behind, in flat memory.

Sums are kept for each of ten groups of samples, dealt by class, so that a number without one or
two of them (the jackknife) comes from sums. What papers print is computed from ten shuffled
splits. Features themselves are kept for a fixed, class-balanced choice of samples only. Every
field is a sum over samples, so processes that saw different samples join by adding (`tensors`).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cdm_cli.metrics.frechet import FeatureGaussian, Moments
from cdm_cli.metrics.inception_score import NUM_SPLITS, SplitScores
from cdm_cli.metrics.jackknife import (
    NUM_GROUPS,
    Estimate,
    MeanAndStd,
    estimate,
    measure_share,
)
from cdm_cli.metrics.order import choose_balanced, deal_groups, deal_splits
from cdm_cli.metrics.threads import limit_threads_if_small

KEEP = 10_000


@dataclass
class Collector:
    """Statistics of N images with the given ids and labels, [N] each, seen in any order.

    splits, groups: of each image, int64 [N]. moments: of each split; parts: of each group. kept:
    features [M, D] of the images at kept_places [M]; slots: the row of each image in it, -1 for
    none, [N]. From probabilities: scores by split, cells by split and group, and called, how many
    images of each group were called by their label, float64 [G].
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    splits: NDArray[np.int64]
    groups: NDArray[np.int64]
    slots: NDArray[np.int64]
    moments: list[Moments]
    parts: list[Moments]
    kept: Tensor
    kept_places: NDArray[np.int64]
    scores: SplitScores | None = None
    cells: SplitScores | None = None
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
        num_groups: int = NUM_GROUPS,
        seed: int = 0,
    ) -> "Collector":
        """Prepare for N images; features of at most `keep` of them are kept.

        num_groups: 1 for numbers without errors, which takes half the memory.
        """
        places = choose_balanced(ids, labels, keep, seed)
        slots = np.full(len(ids), -1)
        slots[places] = np.arange(len(places))
        G = min(num_groups, len(ids))
        return cls(
            ids=ids,
            labels=labels,
            splits=deal_splits(ids, num_splits, seed),
            groups=deal_groups(ids, labels, G, seed),
            slots=slots,
            moments=[Moments.zeros(feature_dim, device) for _ in range(num_splits)],
            parts=[Moments.zeros(feature_dim, device) for _ in range(G if G > 1 else 0)],
            kept=torch.zeros(len(places), feature_dim, device=device),
            kept_places=places,
        )

    def add(
        self, places: NDArray[np.int64], features: Tensor, probabilities: Tensor | None
    ) -> None:
        """Take features [B, D] and probabilities [B, K] of the images at places [B]."""
        device = features.device
        sums_by_part = ((self.splits[places], self.moments), (self.groups[places], self.parts))
        with limit_threads_if_small(features.shape[1]):
            for kind, sums in sums_by_part:
                for part in np.unique(kind).tolist() if sums else ():
                    sums[part].add(features[_find_rows(kind == part, device)])
        slots = self.slots[places]
        self.kept[torch.from_numpy(slots[slots >= 0]).to(device)] = features[
            _find_rows(slots >= 0, device)
        ]
        if probabilities is not None:
            self._judge(places, probabilities)

    def _judge(self, places: NDArray[np.int64], probabilities: Tensor) -> None:
        K, device = probabilities.shape[1], probabilities.device
        S, G = len(self.moments), max(len(self.parts), 1)
        if self.scores is None:
            self.scores = SplitScores.empty(S, K, device)
            self.cells = SplitScores.empty(S * G, K, device)
            self.called = torch.zeros(G, dtype=torch.float64, device=device)
        assert self.cells is not None
        assert self.called is not None
        splits, groups = self.splits[places], self.groups[places]
        self.scores.add(probabilities, torch.from_numpy(splits))
        self.cells.add(probabilities, torch.from_numpy(splits * G + groups))
        y = torch.from_numpy(self.labels[places]).to(device)
        hits = (probabilities.argmax(1) == y).double()
        self.called.index_add_(0, torch.from_numpy(groups).to(device), hits)

    def tensors(self) -> list[Tensor]:
        """Return every sum, to be added up over processes in place."""
        sums = [tensor for moments in (*self.moments, *self.parts) for tensor in moments]
        called = () if self.called is None else (self.called,)
        return [*sums, *(self.scores or ()), *(self.cells or ()), *called, self.kept]

    def to_host(self) -> None:
        """Move moments and scores into the memory of the host, where distances are computed."""
        self.moments = [sums.to_host() for sums in self.moments]
        self.parts = [sums.to_host() for sums in self.parts]
        self.scores = self.scores and self.scores.to_host()
        self.cells = self.cells and self.cells.to_host()

    @property
    def whole(self) -> Moments:
        """The moments of all splits together."""
        return _add_up(self.moments)

    @property
    def sizes(self) -> list[int]:
        """How many images each group has."""
        return np.bincount(self.groups).tolist()

    @property
    def mark(self) -> str:
        """16 hexadecimal digits, equal for numbers of the same groups of the same ids."""
        order = np.argsort(self.ids, kind="stable")
        dealt = np.stack([self.ids[order], self.groups[order]])
        return hashlib.sha256(dealt.astype("<i8").tobytes()).hexdigest()[:16]

    def accuracy(self) -> MeanAndStd | None:
        """Return how many images were called by their label, with its standard error."""
        if self.called is None:
            return None
        return measure_share(float(self.called.sum()), len(self.ids))

    def estimate_accuracy(self) -> Estimate:
        """Return the same share, and what it is without some groups. Needs probabilities."""
        assert self.called is not None
        hits, sizes = self.called.cpu().numpy(), self.sizes

        def share(out: tuple[int, ...] = ()) -> float:
            return float(np.delete(hits, out).sum() / np.delete(sizes, out).sum())

        return estimate(share(), share, sizes)

    def estimate_score(self) -> Estimate:
        """Return the Inception Score, and what it is without some groups. Needs probabilities."""
        assert self.scores is not None
        assert self.cells is not None
        cells, S = self.cells, len(self.moments)
        return estimate(
            self.scores.score().mean, lambda out: cells.without(out, S).score().mean, self.sizes
        )

    def frechet(
        self, reference: FeatureGaussian, *, uncertain: bool = True, pairs: bool = True
    ) -> Estimate:
        """Return the Fréchet distance to a reference, and what it is without some groups.

        pairs: without two neighbouring ones as well.
        """
        return self.frechets([reference], uncertain=uncertain, pairs=pairs)[0]

    def frechets(
        self, references: Sequence[FeatureGaussian], *, uncertain: bool = True, pairs: bool = True
    ) -> list[Estimate]:
        """Return the same for each of several references; moments of the samples are made once."""
        whole, found = self.whole, dict[tuple[int, ...], list[float]]()

        def distances(out: tuple[int, ...]) -> list[float]:
            if out not in found:
                left = whole.without(_add_up([self.parts[g] for g in out])) if out else whole
                gaussian = left.gaussian()
                found[out] = [gaussian.distance(reference) for reference in references]
            return found[out]

        with limit_threads_if_small(len(whole.total)):
            if not uncertain:
                return [Estimate(value) for value in distances(())]
            return [
                estimate(value, lambda out, at=at: distances(out)[at], self.sizes, pairs=pairs)
                for at, value in enumerate(distances(()))
            ]


def _add_up(parts: list[Moments]) -> Moments:
    if len(parts) == 1:
        return parts[0]
    whole = Moments.zeros(len(parts[0].total), parts[0].total.device)
    for part in parts:
        whole.merge(part)
    return whole


def _find_rows(mask: NDArray[np.bool_], device: torch.device) -> Tensor:
    return torch.from_numpy(np.flatnonzero(mask)).to(device)
