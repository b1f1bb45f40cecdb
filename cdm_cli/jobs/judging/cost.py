"""What `cdm eval` will cost: images that the judge sees, and how long it takes over them."""

import itertools
from collections.abc import Sequence

import torch

from cdm_cli.jobs.judging.images import ImageSet
from cdm_cli.jobs.judging.judge import open_judge
from cdm_cli.jobs.judging.references import count_unseen
from cdm_cli.jobs.runtime.device import describe, keep_seeds, wait
from cdm_cli.jobs.runtime.foretold import TIMED
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.sampling.pace import measure_pace
from cdm_cli.metrics.collector import KEEP
from cdm_cli.metrics.features import FeatureExtractor
from cdm_cli.options.judging import EvalOptions

BATCH = {"cpu": 4, "cuda": 256}  # images that are timed: Inception takes a second for four
DOUBLE, FLOAT = 8, 4


def estimate_eval(
    options: EvalOptions, images: Sequence[ImageSet], session: Session
) -> dict[str, object]:  # fmt: skip
    """Return how many images will be judged, in which time, and what is kept of it on the disk.

    Real images count where no statistics of them are kept yet. The judge is loaded, and timed on
    noise. Raises what `open_judge` raises.
    """
    judge = open_judge(options.judge, session.device).extractor
    real = count_unseen(options.judge.ref, images[0].resolution, judge)
    samples = sum(each.num for each in images)
    rate = time_judge(judge, images[0], session.device)
    seconds = (samples + sum(real)) / (rate * (options.judge.compute.gpus or 1))
    return {
        "judge": judge.name,
        "images_judged": samples,
        "real_images_judged": sum(real),
        "disk_bytes": sum(_count_kept_bytes(num, judge.feature_dim) for num in real),
        "device": describe(session.device),
        "estimated_seconds": float(f"{seconds:.4g}"),
        "estimated_by": TIMED,
    }


def time_judge(judge: FeatureExtractor, like: ImageSet, device: torch.device) -> float:
    """Return how many images of a size the judge sees a second, of one process."""
    size = (BATCH[device.type], like.images.shape[3], *like.images.shape[1:3])
    with keep_seeds(device):
        noise = torch.randint(0, 256, size, dtype=torch.uint8, device=device)
    calls = (judge(noise) for _ in itertools.count())  # the first one chooses kernels
    return (measure_pace(calls, 0, lambda: wait(device)) or 0.0) * len(noise)


def _count_kept_bytes(num: int, dim: int) -> int:
    """Return the bytes of the statistics of so many images: moments, and features of some."""
    return DOUBLE * dim * (dim + 1) + FLOAT * dim * min(num, KEEP)
