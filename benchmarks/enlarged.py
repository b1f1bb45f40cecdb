"""A store of low-resolution images merely enlarged bilinearly: what a cascade must beat.

    python benchmarks/enlarged.py lowres.h5 32 -o enlarged.h5 && cdm eval fid enlarged.h5

Enlarged as a super-resolution stage sees z_0 (bilinear, align_corners=False), rounded to bytes.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from cdm_cli.data.pixels import move_channels_last
from cdm_cli.data.schema import PartSpec, StoreSpec
from cdm_cli.data.store import Store, open_store
from cdm_cli.jobs.runtime.same_store import resume_or_create


def spec_of(lowres: Store, resolution: int) -> StoreSpec:
    """Return the store of the same samples, larger."""
    part = lowres.parts[""]
    low = min(part.resolutions)
    return StoreSpec(
        kind="samples",
        parts={"": PartSpec(part.num, {resolution: part.count_channels(low)})},
        classes=lowres.classes,
        provenance={"command": "benchmarks/enlarged.py", "identity": {"lowres": lowres.digest}},
        block_size=part.block_size,
    )


def enlarged(images: np.ndarray, resolution: int) -> np.ndarray:
    """Return uint8 [N, R, R, C] of uint8 [N, h, w, C]."""
    x = torch.from_numpy(images).movedim(-1, -3).contiguous().float()
    x = F.interpolate(x, (resolution, resolution), mode="bilinear", align_corners=False)
    return move_channels_last(x.round().byte()).numpy()


def main() -> None:
    """Write the store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lowres", type=Path)
    parser.add_argument("resolution", type=int)
    parser.add_argument("-o", "--out", type=Path, default=Path("enlarged.h5"))
    arguments = parser.parse_args()
    with open_store(arguments.lowres) as lowres:
        spec = spec_of(lowres, arguments.resolution)
        part, low = lowres.parts[""], min(lowres.parts[""].resolutions)
        with resume_or_create(arguments.out, spec) as store:
            for b in store.parts[""].list_missing():
                block = part.read_checked(b)
                images = enlarged(block[f"images/{low}"], arguments.resolution)
                kept = {name: block[name] for name in ("ids", "labels")}
                name = f"images/{arguments.resolution}"
                store.parts[""].write_block(b, {name: images, **kept})


if __name__ == "__main__":
    main()
