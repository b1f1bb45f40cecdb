"""What `cdm prepare` will cost: the size of the store, and how long its images take to decode."""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

from cdm_cli.data import schema
from cdm_cli.data.images import BadImageError
from cdm_cli.data.prepared import prepare_image
from cdm_cli.data.schema import PartName, StoreSpec
from cdm_cli.jobs.prepare.plan import CHANNELS, FoundImages
from cdm_cli.jobs.runtime.foretold import TIMED

SECONDS = 0.5  # of timing
TIMED_IMAGES = 64


def estimate_cost(
    found: Mapping[PartName, FoundImages], spec: StoreSpec, workers: int, left: int
) -> dict[str, object]:
    """Return what becomes of the images, the bytes of the store, and a time for `left` images."""
    recipe, layout = found["train"].images.recipe, measure_layout(spec)
    rate = measure_rate(found["train"])
    seconds = left / (rate * workers)
    return {
        **{name: len(part.images.y) for name, part in found.items()},
        "classes": len(spec.classes),
        "labels": found["train"].how,
        "resolutions": list(recipe.resolutions),
        "channels": f"{recipe.channels} ({CHANNELS[recipe.channels]})",
        "images_left": left,
        "workers": workers,
        "disk_bytes": layout,
        "estimated_seconds": float(f"{seconds:.4g}"),
        "estimated_by": TIMED,
    }


def measure_layout(spec: StoreSpec) -> int:
    """Return the bytes of a store of these contents."""
    return schema.lay_out_store(schema.make_attributes(spec), schema.make_contents(spec)).size


def measure_rate(part: FoundImages) -> float:
    """Return how many images of a part one process prepares a second, from some of them."""
    start, count = time.perf_counter(), 0
    for row in _spread(len(part.images.y)):
        source = part.images.source
        with suppress(BadImageError):
            prepare_image(source.read(row), part.images.recipe, source.names[row])
        count += 1
        if time.perf_counter() - start >= SECONDS:
            break
    return count / (time.perf_counter() - start)


def _spread(num: int) -> Iterator[int]:
    """Yield rows from all over a listing, from its last one backwards."""
    step = max(1, num // TIMED_IMAGES)
    yield from range(num - 1, -1, -step)
