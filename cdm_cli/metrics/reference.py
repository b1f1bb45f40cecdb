"""What samples are compared with: the statistics of real images, and their file.

A file of statistics is safetensors: `mu` [D] and `sigma` [D, D] in float64, `features`
[M, D] in float32 and `ids` [M] of a class-balanced choice of the images, and JSON metadata
with the SHA-256 of it all: the format alone would take most flipped bits for numbers.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from cdm_cli.errors import BadInputError
from cdm_cli.metrics.collector import Collector
from cdm_cli.metrics.frechet import FeatureGaussian


@dataclass(frozen=True)
class Reference:
    """Statistics of real images: mu [D] and sigma [D, D] of their features.

    name: "train", "val" or a file name. num: how many images, None where the file does not
    say. features [M, D] and ids [M]: what kernel and neighbour metrics compare with, or None.
    digest: of the images, or of the file that brought the statistics. judge: the digest of what
    judged them, resolution: theirs, of statistics in memory; a file has both in its key.
    """

    name: str
    num: int | None
    mu: NDArray[np.float64]
    sigma: NDArray[np.float64]
    digest: str
    features: NDArray[np.float32] | None = None
    ids: NDArray[np.int64] | None = None
    judge: str = ""
    resolution: int | None = None

    @cached_property
    def gaussian(self) -> FeatureGaussian:
        """The Gaussian, whose factor is computed once."""
        return FeatureGaussian.of(self.mu, self.sigma)

    @classmethod
    def of(cls, name: str, collector: Collector, digest: str) -> "Reference":
        """Take the statistics that a pass over real images left."""
        whole = collector.whole
        return cls(
            name=name,
            num=whole.num,
            mu=whole.mu,
            sigma=whole.sigma,
            digest=digest,
            features=collector.kept.cpu().numpy(),
            ids=collector.ids[collector.kept_places],
        )

    def to_bytes(self, key: dict[str, Any]) -> bytes:
        """Return the contents of a file of statistics; key says what they are of."""
        tensors = {"mu": self.mu, "sigma": self.sigma}
        if self.features is not None and self.ids is not None:
            tensors |= {"features": self.features, "ids": self.ids}
        about = {"name": self.name, "num": self.num, "digest": self.digest, "key": key}
        text = json.dumps(about)
        return save(tensors, {"cdm": text, "sha256": _hash(text, tensors)})

    @classmethod
    def from_bytes(cls, content: bytes, feature_dim: int, key: dict[str, Any]) -> "Reference":
        """Read what `to_bytes` wrote. Raises BadInputError unless it is of the same key."""
        try:
            end = 8 + int.from_bytes(content[:8], "little")
            metadata = json.loads(content[8:end])["__metadata__"]
            tensors = load(content)
            if metadata["sha256"] != _hash(metadata["cdm"], tensors):
                raise ValueError("their SHA-256 is another")
            about = json.loads(metadata["cdm"])
            found = cls(
                name=str(about["name"]),
                num=about["num"],
                digest=str(about["digest"]),
                mu=tensors["mu"],
                sigma=tensors["sigma"],
                features=tensors.get("features"),
                ids=tensors.get("ids"),
            )
            fits = about["key"] == key and found._fits(feature_dim)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise BadInputError(f"damaged statistics: {error}") from None
        if not fits:
            raise BadInputError("the statistics are of something else")
        return found

    def _fits(self, D: int) -> bool:
        features, ids = self.features, self.ids
        kept = features is None or ids is None or features.shape == (len(ids), D)
        return kept and self.mu.shape == (D,) and self.sigma.shape == (D, D)


def _hash(text: str, tensors: Mapping[str, NDArray[Any]]) -> str:
    hashed = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = tensors[name]
        hashed.update(f"{name} {array.dtype} {array.shape}\n".encode())
        hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()
