"""The real images that samples are compared with: statistics computed once, then kept.

They stand beside the data store, in `data.h5.stats/`: the store itself never changes once it
is finished. A file of statistics is named after everything that decides it (data digest,
part, resolution, extractor and its digest, resize), so it is never stale, only unused; it
may be deleted at any time.
"""

import hashlib
import json
import re
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from cdm_cli.cascade.files import read_bytes
from cdm_cli.data.disk import make_directory
from cdm_cli.data.durable import write_file_atomically
from cdm_cli.errors import CdmError, DiskError, MismatchError, MissingError
from cdm_cli.jobs.judging.images import ImageSet, collect
from cdm_cli.jobs.judging.npz import Npz
from cdm_cli.jobs.judging.real import RealImages, open_real
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.metrics.collector import KEEP
from cdm_cli.metrics.features import FeatureExtractor
from cdm_cli.metrics.reference import Reference
from cdm_cli.report import Report

LIMIT = 4 * 2**30  # bytes of a file of statistics


def find_references(
    path: Path,
    resolution: int,
    extractor: FeatureExtractor,
    session: Session,
    *,
    features: bool = True,
) -> list[Reference]:
    """Return train and val of a prepared store, the images of another, or what an .npz brings.

    features: whether kernel and neighbour metrics will be asked for. Raises MissingError, or
    MismatchError where the store lacks the resolution or the file is of another extractor.
    """
    with open_real(path) as real:
        if isinstance(real.source, Npz):
            return [_take_npz(real, real.source, resolution, extractor, session, features=features)]
        return [
            find_statistics(path, name, images, extractor, session)
            for name, images in real.images(resolution).items()
        ]


def count_unseen(path: Path, resolution: int, extractor: FeatureExtractor) -> list[int]:
    """Return how many images each part has of which no statistics are kept yet."""
    with open_real(path) as real:
        return [
            images.num
            for name, images in real.images(resolution).items()
            if not name_statistics(path, _make_key(images, name, extractor)).is_file()
        ]


def open_training_images(path: Path, resolution: int, stack: ExitStack) -> ImageSet:
    """Return the images that samples may be copies of: train of a store, or those of an .npz.

    The stack keeps the file open. Raises MismatchError where there are none.
    """
    parts = stack.enter_context(open_real(path)).images(resolution)
    if not parts:
        raise MismatchError(f"nn: {path} holds no images", next="--ref data.h5")
    return next(iter(parts.values()))


def find_statistics(
    path: Path,
    part: str,
    images: ImageSet,
    extractor: FeatureExtractor,
    session: Session,
) -> Reference:
    """Return the statistics of all images, from their file beside path if it is there."""
    key = _make_key(images, part, extractor)
    kept = name_statistics(path, key)
    found = _read_kept(kept, extractor.feature_dim, key, session.report)
    if session.world.agree(found is not None) and found is not None:
        return found
    collector = collect(images, extractor, session, uncertain=False)
    reference = Reference.of(part or "ref", collector, images.digest)
    if session.world.leads:
        _keep(kept, reference.to_bytes(key), session.report)
    session.world.barrier()
    return reference


def _take_npz(
    real: RealImages,
    npz: Npz,
    resolution: int,
    extractor: FeatureExtractor,
    session: Session,
    *,
    features: bool,
) -> Reference:
    """Take mu and sigma as they are, and judge the images where something needs them."""
    moments = npz.moments(extractor)
    if moments is not None and not (features and npz.images):
        return moments
    seen = find_statistics(real.path, "", real.images(resolution)[""], extractor, session)
    if moments is None:
        return replace(seen, name=real.path.name)
    return replace(moments, features=seen.features, ids=seen.ids)


def _make_key(images: ImageSet, part: str, extractor: FeatureExtractor) -> dict[str, Any]:
    return {
        "schema": 1,
        "data": images.digest,
        "part": part,
        "resolution": images.resolution,
        "extractor": extractor.name,
        "extractor_digest": extractor.digest,
        "resize": extractor.resize,
        "kept": KEEP,
    }


def name_statistics(data: Path, key: dict[str, Any]) -> Path:
    """Return where the statistics of that key stand, beside the data."""
    tail = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    name = f"{key['part'] or 'ref'}-{key['resolution']}-{key['extractor']}-{tail}"
    folder = data.with_name(f"{data.name}.stats")
    return folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.safetensors"


def _read_kept(
    path: Path, feature_dim: int, key: dict[str, Any], report: Report
) -> Reference | None:
    try:
        return Reference.from_bytes(read_bytes(path, LIMIT), feature_dim, key)
    except MissingError:
        return None
    except CdmError as error:
        report.say(f"{path}: {error.what}; computing the statistics anew")
        return None


def _keep(path: Path, content: bytes, report: Report) -> None:
    """Write the statistics; a folder that cannot be written to only costs time later."""
    try:
        make_directory(path.parent)
        write_file_atomically(path, content)
    except (DiskError, OSError) as error:
        report.say(f"the statistics could not be kept beside the data ({error})")
