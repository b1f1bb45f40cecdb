"""Numbers of arrays that are whole in memory, which what is summed in batches is compared with."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cdm_cli.metrics.features import FeatureExtractor
from cdm_cli.metrics.frechet import FeatureGaussian
from cdm_cli.metrics.inception_score import NUM_SPLITS, SplitScores
from cdm_cli.metrics.jackknife import MeanAndStd
from cdm_cli.metrics.order import deal_splits


class Features(NamedTuple):
    """float32 features [N, D] and probabilities [N, K], or None, on the CPU."""

    features: Tensor
    probabilities: Tensor | None


def extract(extractor: FeatureExtractor, batches: Iterable[Tensor]) -> Features:
    """Run uint8 batches [B, C, H, W] through an extractor and keep everything, in order."""
    features, probabilities = zip(*map(extractor, batches), strict=True)
    judged = [one.cpu() for one in probabilities if one is not None]
    return Features(
        torch.cat([one.cpu() for one in features]), torch.cat(judged) if judged else None
    )


def frechet_distance(
    mu: ArrayLike, sigma: ArrayLike, mu_ref: ArrayLike, sigma_ref: ArrayLike
) -> float:
    """Return the squared Fréchet distance of two Gaussians, mu [D] and sigma [D, D]."""
    return FeatureGaussian.of(mu, sigma).distance(FeatureGaussian.of(mu_ref, sigma_ref))


def inception_score(
    probabilities: Tensor, ids: NDArray[np.int64] | None = None, *, num_splits: int = NUM_SPLITS
) -> MeanAndStd:
    """Return the score over splits of probabilities [N, K], by ids [N]; None: 0..N-1."""
    num, K = probabilities.shape
    splits = deal_splits(np.arange(num) if ids is None else ids, num_splits)
    scores = SplitScores.empty(num_splits, K, probabilities.device)
    scores.add(probabilities, torch.from_numpy(splits))
    return scores.score()
