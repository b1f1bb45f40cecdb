"""Low-resolution images merely enlarged: what a super-resolution model has to beat."""

from pathlib import Path

import numpy as np
from PIL import Image

from cdm_cli.data.durable import find_free_name
from cdm_cli.data.schema import PartSpec, StoreSpec
from cdm_cli.data.store import Store, open_store
from cdm_cli.errors import quote
from cdm_cli.jobs.runtime.same_store import resume_or_create

METHOD = "bicubic, Pillow"


def write_enlarged(lowres: Path, out: Path, resolution: int) -> None:
    """Write the samples of a store, enlarged to a resolution; ids, labels and seed stay the same.

    A file that is there of the same samples is continued. Raises what `open_store` and
    `resume_or_create` raise.
    """
    with open_store(lowres) as store:
        part, low = store.parts[""], min(store.parts[""].resolutions)
        another = f"cdm demo {quote(find_free_name(out.parent))}"
        with resume_or_create(out, _make_spec(store, low, resolution), next=another) as larger:
            for b in larger.parts[""].list_missing():
                block = part.read_checked(b)
                images = enlarge_images(block[f"images/{low}"], resolution)
                kept = {name: block[name] for name in ("ids", "labels")}
                larger.parts[""].write_block(b, {f"images/{resolution}": images, **kept})


def _make_spec(lowres: Store, low: int, resolution: int) -> StoreSpec:
    part = lowres.parts[""]
    seed = lowres.provenance.get("identity", {}).get("seed")
    return StoreSpec(
        kind="samples",
        parts={"": PartSpec(part.num, {resolution: part.count_channels(low)})},
        classes=lowres.classes,
        provenance={"command": METHOD, "identity": {"lowres": lowres.digest, "seed": seed}},
        block_size=part.block_size,
    )


def enlarge_images(images: np.ndarray, resolution: int) -> np.ndarray:
    """Enlarge images, uint8 [N, h, w, 3], to a side R, bicubic: uint8 [N, R, R, 3]."""
    size, method = (resolution, resolution), Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(image).resize(size, method)) for image in images])
