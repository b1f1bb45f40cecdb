"""Feature extraction and statistics per second, beside clean-fid and torch-fidelity.

    python benchmarks/features_speed.py [--device cuda --num 10000] [--peer-float32] [--variants]

Each side starts from the images as a user has them (cdm: a store; the peers: a folder of PNG
files, torch-fidelity also tensors in memory) and ends with the mean and covariance of all
features. Loading the network and one warm pass are not counted. The peers run as shipped, with
TF32 where torch allows it; cdm judges in full float32 (--peer-float32: the peers too). A peer
that is not installed is left out. On a CPU that others use too, compare seconds of processors.
"""

import argparse
import importlib.util
import os
import platform
import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from inception_stand_in import Files, weights
from peer_metrics import Shown, drawn, written

from cdm_cli.data.schema import PartSpec, StoreSpec
from cdm_cli.data.store import create, open_store
from cdm_cli.jobs.judging.images import BATCH, collect, from_store
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.metrics.inception import InceptionExtractor
from cdm_cli.metrics.resize import resize_clean
from cdm_cli.options.sampling import Compute

CHILDREN = resource.RUSAGE_CHILDREN
Call = Callable[[int | None], Any]  # over so many images, None: all


class Inputs(NamedTuple):
    """The same images three times: a store, a folder, and tensors uint8 [N, 3, R, R]."""

    store: Path
    folder: Path
    images: torch.Tensor
    files: Files
    batch_size: int
    device: torch.device


def store_of(images: torch.Tensor, path: Path) -> Path:
    """Write the images as `cdm sample` would."""
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
    N, R = len(pixels), pixels.shape[1]
    spec = StoreSpec(
        kind="samples", parts={"": PartSpec(N, {R: 3})}, classes=["all"], provenance={}
    )
    with create(path, spec) as store:
        part = store.parts[""]
        for block in part.list_missing():
            rows = part.list_rows(block)
            ids = np.arange(rows.start, rows.stop)
            arrays = {f"images/{R}": pixels[rows.start : rows.stop], "ids": ids, "labels": ids * 0}
            part.write_block(block, arrays)
    return path


def by_cdm(inputs: Inputs) -> dict[str, Call]:
    """The pass of `cdm eval fid`: checked blocks, one network, streaming float64 moments."""
    path = inputs.files.torchscript
    judge = InceptionExtractor("clean", inputs.device, weights=path, file=inputs.files.pinned(path))
    session = Session(inputs.device, Compute(batch_size=inputs.batch_size))

    def call(num: int | None) -> Any:
        with open_store(inputs.store) as store:
            collector = collect(from_store(store, None, None, num, 0), judge, session)
        return collector.whole.gaussian()

    return {"cdm": call}


def by_cleanfid(inputs: Inputs) -> dict[str, Call]:
    """clean-fid, mode clean, with its own number of workers where there are cores."""
    from cleanfid import fid
    from cleanfid.inception_torchscript import InceptionV3W

    net = InceptionV3W(str(inputs.files.torchscript.parent), download=False).to(inputs.device)
    workers = min(12, os.cpu_count() or 1)

    def call(num: int | None) -> Any:
        x = fid.get_folder_features(
            str(inputs.folder), net, num_workers=workers, num=num,
            batch_size=inputs.batch_size, device=inputs.device, mode="clean", verbose=False,
        )  # fmt: skip
        return x.mean(0), np.cov(x, rowvar=False)

    return {"clean-fid": call}


def by_torch_fidelity(inputs: Inputs) -> dict[str, Call]:
    """torch-fidelity's extraction and statistics, from the folder and from memory."""
    from torch_fidelity.datasets import ImagesPathDataset
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torch_fidelity.metric_fid import fid_features_to_statistics
    from torch_fidelity.utils import get_featuresdict_from_dataset

    net = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(inputs.files.state_dict)
    ).to(inputs.device)
    paths = sorted(str(path) for path in inputs.folder.iterdir())

    def over(make: Callable[[int | None], Any]) -> Call:
        def call(num: int | None) -> Any:
            on_cuda = inputs.device.type == "cuda"
            found = get_featuresdict_from_dataset(
                make(num), net, inputs.batch_size, on_cuda, False, False
            )
            return fid_features_to_statistics(found["2048"])

        return call

    return {
        "torch-fidelity": over(lambda num: ImagesPathDataset(paths[:num])),
        "torch-fidelity, in memory": over(lambda num: Shown(inputs.images[:num])),
    }


PEERS: dict[str, tuple[str, Callable[[Inputs], dict[str, Call]]]] = {
    "clean-fid": ("cleanfid", by_cleanfid),
    "torch-fidelity": ("torch_fidelity", by_torch_fidelity),
}


def allow_tf32(allowed: bool) -> None:
    """Set what torch ships with: TF32 for convolutions, not for matrix products."""
    torch.backends.cudnn.allow_tf32 = allowed


class Cost(NamedTuple):
    """What a pass took: seconds on the clock, and of all processors together."""

    wall: float
    processors: float


def cost(call: Call) -> Cost:
    """Run a pass over all images. Processors count workers too, and no other program."""

    def used() -> float:
        own, workers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, CHILDREN))
        return own.ru_utime + own.ru_stime + workers.ru_utime + workers.ru_stime

    start, before = time.perf_counter(), used()
    call(None)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Cost(time.perf_counter() - start, used() - before)


def best(calls: dict[str, Call], repeats: int, prepare: Callable[[], None]) -> dict[str, Cost]:
    """Return the least of some passes of each side, in turns, after a warm one over two images."""
    for call in calls.values():
        prepare()
        call(2)
    found = {name: Cost(float("inf"), float("inf")) for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            prepare()
            found[name] = Cost(*map(min, found[name], cost(call)))
    return found


def print_rates(inputs: Inputs, repeats: int, *, peer_float32: bool) -> None:
    """Time every side and print its rates, and how many times as fast cdm is."""
    calls = by_cdm(inputs)
    for name, (module, build) in PEERS.items():
        if importlib.util.find_spec(module) is None:
            print(f"{name} is not installed: left out")
        else:
            calls |= build(inputs)
    costs = best(calls, repeats, lambda: allow_tf32(not peer_float32))  # cdm has it off anyway
    num, mine = len(inputs.images), costs["cdm"]
    print(f"{'':28s} {'images/s':>10s} {'cdm / it':>9s} {'per CPU s':>10s} {'cdm / it':>9s}")
    for name, one in costs.items():
        print(f"{name:28s} {num / one.wall:10.1f} {one.wall / mine.wall:9.2f} "
              f"{num / one.processors:10.2f} {one.processors / mine.processors:9.2f}")  # fmt: skip


def print_variants(inputs: Inputs) -> None:
    """Print the network alone in other forms of the same float32 arithmetic."""
    allow_tf32(False)
    x = (resize_clean(inputs.images[: inputs.batch_size].to(inputs.device)) - 128) / 128
    last = x.contiguous(memory_format=torch.channels_last)

    def layers() -> Any:
        path = str(inputs.files.torchscript)
        return torch.jit.load(path, map_location=inputs.device).eval().layers

    plain, frozen = layers(), torch.jit.freeze(layers())
    forms: dict[str, Callable[[], torch.Tensor]] = {
        "as clean-fid runs it": lambda: plain(x),
        "channels last": lambda: plain(last),
        "frozen": lambda: frozen(x),
        "frozen, channels last": lambda: frozen(last),
    }
    print(f"\nthe network alone, batches of {len(x)}, float32")
    with torch.inference_mode():
        expected = plain(x)
        calls: dict[str, Call] = {name: lambda _, form=form: form() for name, form in forms.items()}
        for name, one in best(calls, 5, lambda: None).items():
            deviation = float((calls[name](0) - expected).abs().max() / expected.abs().max())
            print(f"{name:28s} {len(x) / one.wall:10.1f} images/s {len(x) / one.processors:10.2f} "
                  f"per CPU s   largest deviation {deviation:.1e}")  # fmt: skip


def machine(device: torch.device) -> str:
    """Return what it ran on, and the versions."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else (
        f"CPU {platform.machine()}, {torch.get_num_threads()} threads"
    )  # fmt: skip
    there = [name for name, (module, _) in PEERS.items() if importlib.util.find_spec(module)]
    packages = ", ".join(f"{name} {version(name)}" for name in there)
    return f"{where} of {os.cpu_count()} cores; torch {torch.__version__}; {packages}"


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--num", type=int, default=128)
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--batch-size", type=int, help="of every side [default: cdm's own]")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--weights", type=Path, help="directory with both published files")
    parser.add_argument("--peer-float32", action="store_true", help="TF32 off for the peers too")
    parser.add_argument("--variants", action="store_true", help="also other forms of the network")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    device = torch.device(arguments.device)
    batch_size = arguments.batch_size or BATCH[device.type]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = drawn(arguments.num, arguments.resolution, 1, 40)
        inputs = Inputs(
            store_of(images, folder / "x.h5"), written(images, folder / "png"), images,
            weights(folder, arguments.weights), batch_size, device,
        )  # fmt: skip
        print(machine(device))
        print(f"{arguments.num} images of {arguments.resolution} pixels, batches of {batch_size}, "
              f"{inputs.files.what}")  # fmt: skip
        print_rates(inputs, arguments.repeats, peer_float32=arguments.peer_float32)
        if arguments.variants:
            print_variants(inputs)


if __name__ == "__main__":
    main()
