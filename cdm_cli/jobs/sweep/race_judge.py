"""The number of a point of a race: FID of its first images, each jackknife group left out."""

import hashlib
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from cdm_cli.data.store import open_store
from cdm_cli.jobs.judging.images import ImageSet, collect
from cdm_cli.jobs.judging.panel import Panel
from cdm_cli.jobs.sweep.choice import PREFERRED
from cdm_cli.jobs.sweep.point import Point
from cdm_cli.metrics.features import FeatureExtractor
from cdm_cli.metrics.jackknife import Estimate
from cdm_cli.metrics.racing import count_groups
from cdm_cli.metrics.reference import Reference

KEPT = 2  # features of images, which no number of a race needs
MOST = 2**30  # bytes of features in the memory of the host, of all processes of a job


@dataclass(frozen=True)
class RaceJudge:
    """Judges the first images of points. seed: deals them into groups.

    known: features [B, D] of batches that were judged, by the digest of point and images.
    """

    panel: Panel
    seed: int
    known: dict[bytes, Tensor] = field(default_factory=dict[bytes, Tensor], repr=False)

    @property
    def reference(self) -> Reference:
        """The real images that decide: train, as the paper selects, or the first there are."""
        named = (one for one in self.panel.references if one.name == PREFERRED)
        return next(named, self.panel.references[0])

    def estimate(self, point: Point, num: int) -> Estimate:
        """Judge the first num images of a point, by FID against one reference."""
        most = MOST // self.panel.session.world.size
        extractor = Remembering(self.panel.judge.extractor, self.known, point.samples.name, most)
        with open_store(point.samples) as store:
            part = store.parts[""]
            images = ImageSet(
                name=str(point.samples),
                digest="",
                images=part.images(max(part.resolutions)),
                rows=np.arange(num),
                ids=np.asarray(part.ids[:num]),
                labels=np.asarray(part.read_labels(slice(num))),
                classes=tuple(store.classes),
                check=part.check,
            )
            collector = collect(
                images, extractor, self.panel.session, keep=KEPT, seed=self.seed,
                num_groups=count_groups(num),
            )  # fmt: skip
        return collector.frechet(self.reference.gaussian, pairs=False)


class Remembering:
    """An extractor of the images of one point, which judges no batch twice.

    Each round judges a point from its first image on, in batches all of which but the last an
    earlier round has judged. There are no class probabilities.
    """

    def __init__(
        self, extractor: FeatureExtractor, known: dict[bytes, Tensor], of: str, most: int = MOST
    ) -> None:
        """Remember in `known`. of: names the point. most: bytes of features that are kept."""
        self.name, self.digest, self._most = extractor.name, extractor.digest, most
        self.feature_dim, self.resize = extractor.feature_dim, extractor.resize
        self._extractor, self._known, self._of = extractor, known, of

    def __call__(self, images: Tensor) -> tuple[Tensor, None]:
        """Return float32 features [B, D] of uint8 images [B, C, H, W]."""
        hashed = hashlib.sha256(self._of.encode())
        hashed.update(images.cpu().contiguous().numpy().tobytes())
        key = hashed.digest()
        if key in self._known:
            return self._known[key].to(images.device), None
        features, _ = self._extractor(images)
        if sum(kept.nbytes for kept in self._known.values()) + features.nbytes <= self._most:
            self._known[key] = features.to("cpu", copy=True)  # what is given may be used again
        return features, None
