"""FID, KID, IS, precision and recall of cdm beside four other packages, on the same images.

    python benchmarks/peer_metrics.py [--num 128] [--weights DIR] [--device cuda]

clean-fid, torch-fidelity, pytorch-fid and torchmetrics run as installed (`pip install -e
'.[bench]'`), all with the same weights: random ones of the real architecture, or with --weights
those of a directory that holds both published files. Every metric is asked for in the form in
which nothing is drawn at random: one subset of all images, one split. A relative difference
above 1e-4 is explained below the table.
"""

import argparse
import importlib
import inspect
import os
import platform
import sys
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
from PIL import Image
from scipy import linalg
from torch import Tensor, nn

from cdm_cli.metrics.frechet import FeatureGaussian, Moments
from cdm_cli.metrics.inception import InceptionExtractor
from cdm_cli.metrics.kernel import estimate_kernel_distance
from cdm_cli.metrics.neighbours import prdc
from cdm_cli.metrics.order import deal_splits
from cdm_cli.names import InceptionMode
from tests.metrics.whole import Features, extract, frechet_distance, inception_score

START = time.monotonic()
TOLERANCE = 1e-4
PACKAGES = ("clean-fid", "torch-fidelity", "pytorch-fid", "torchmetrics")
WHY = {
    "a": "fewer images than 2048 features: both covariances are singular. The peer takes a square "
    "root of their product in finite precision (with 1e-6 added to the diagonal where that "
    "fails); cdm takes singular values, see the row `exact` and the full-rank rows",
    "b": "torchmetrics enlarges with antialiasing by default, which no published number "
    "does; antialias=False is the row that compares",
}


class Row(NamedTuple):
    """One comparison; why: a key of WHY where a difference is expected."""

    what: str
    peer: str
    ours: float
    theirs: float
    why: str = ""

    @property
    def difference(self) -> float:
        """The relative difference."""
        return abs(self.ours - self.theirs) / max(abs(self.theirs), 1e-12)


class Sets(NamedTuple):
    """Samples and real images uint8 [N, 3, R, R], also as folders of PNG files."""

    images: tuple[Tensor, Tensor]
    folders: tuple[Path, Path]
    batch_size: int
    device: torch.device


def drawn(num: int, resolution: int, seed: int, contrast: float) -> Tensor:
    """Draw smooth coloured noise: uint8 [N, 3, R, R]."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.zeros(num, 3, resolution, resolution)
    for side in (1, 2, 4, 8, 16):
        coarse = torch.randn(num, 3, side, side, generator=rng)
        images += nn.functional.interpolate(coarse, size=(resolution, resolution), mode="bicubic")
    return (127.5 + contrast * images).clamp(0, 255).round().byte()


def written(images: Tensor, folder: Path) -> Path:
    """Write one PNG for each image, in order."""
    folder.mkdir()
    for i, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(folder / f"{i:06d}.png")
    return folder


def ours(mode: InceptionMode, files: Files, sets: Sets) -> tuple[Features, Features]:
    """Extract features and probabilities of samples and real images as `cdm eval` does."""
    path = files.state_dict if mode == "legacy-pytorch" else files.torchscript
    judge = InceptionExtractor(mode, sets.device, weights=path, file=files.pinned(path))
    samples, real = (extract(judge, images.split(sets.batch_size)) for images in sets.images)
    return samples, real


def accept_disp() -> None:
    """Let peers call sqrtm(..., disp=False), which newer SciPy no longer has."""
    if "disp" not in inspect.signature(linalg.sqrtm).parameters:
        sqrtm = linalg.sqrtm
        linalg.sqrtm = lambda A, disp=True: sqrtm(A) if disp else (sqrtm(A), 0.0)


def gaussian(features: Tensor) -> FeatureGaussian:
    """Return the Gaussian that streaming batches leave."""
    moments = Moments.zeros(features.shape[1])
    for batch in features.split(50):
        moments.add(batch)
    return moments.gaussian()


def numbers(found: tuple[Features, Features]) -> dict[str, float]:
    """Return what cdm says of samples against real images."""
    (x, p), (y, _) = found
    assert p is not None
    neighbours = prdc(x, y)
    return {
        "fid": gaussian(x).distance(gaussian(y)),
        "kid": estimate_kernel_distance(x, y, subset_size=len(x))[0].mean,
        "is": inception_score(p, num_splits=1).mean,
        "precision": neighbours.precision.mean,
        "recall": neighbours.recall.mean,
    }


def exact_fid(found: tuple[Features, Features]) -> float:
    """Return FID of fewer images than dimensions by singular values, float64, no covariance."""
    (x, y) = (features.features.double().numpy() for features in found)
    F, G = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (x, y))
    gap = x.mean(0) - y.mean(0)
    trace = np.linalg.svd(F @ G.T, compute_uv=False).sum()
    return float(gap @ gap + (F**2).sum() + (G**2).sum() - 2 * trace)


def by_cleanfid(mode: InceptionMode, files: Files, sets: Sets, ours: dict[str, float]) -> list[Row]:
    """clean-fid reads the folders: its resizing, its network wrapper, its formulas."""
    from cleanfid import fid
    from cleanfid.inception_torchscript import InceptionV3W

    theirs = mode.replace("-", "_")
    inside = mode == "legacy-tensorflow"
    net = InceptionV3W(str(files.torchscript.parent), download=False, resize_inside=inside)
    x, y = (
        fid.get_folder_features(
            str(folder), net.to(sets.device), num_workers=0, batch_size=sets.batch_size,
            device=sets.device, mode=theirs, verbose=False,
        )
        for folder in sets.folders
    )  # fmt: skip
    kid = fid.kernel_distance(
        x.astype(float), y.astype(float), num_subsets=1, max_subset_size=len(x)
    )
    name = f"clean-fid, {theirs}"
    return [
        Row(f"FID {mode}", name, ours["fid"], float(fid.fid_from_feats(x, y)), "a"),
        Row(f"KID {mode}", name, ours["kid"], kid),
    ]


def by_pytorch_fid(files: Files, sets: Sets, ours: dict[str, float]) -> list[Row]:
    """pytorch-fid reads the folders; its weights are where its download would put them."""
    from pytorch_fid import fid_score

    os.environ["TORCH_HOME"] = str(files.state_dict.parent / "home")
    place = Path(torch.hub.get_dir()) / "checkpoints" / files.state_dict.name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(files.state_dict.read_bytes())
    paths = [str(folder) for folder in sets.folders]
    value = fid_score.calculate_fid_given_paths(paths, sets.batch_size, sets.device, 2048, 0)
    return [Row("FID legacy-pytorch", "pytorch-fid", ours["fid"], float(value), "a")]


class Shown(torch.utils.data.Dataset[Tensor]):
    """Images as torch-fidelity takes them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i]


def by_torch_fidelity(files: Files, sets: Sets, ours: dict[str, float]) -> list[Row]:
    """torch-fidelity computes all of its metrics from one pass."""
    import torch_fidelity

    found = torch_fidelity.calculate_metrics(
        input1=Shown(sets.images[0]), input2=Shown(sets.images[1]), isc=True, fid=True, kid=True,
        prc=True, isc_splits=1, kid_subsets=1, kid_subset_size=len(sets.images[0]),
        feature_extractor="inception-v3-compat", batch_size=sets.batch_size, cache=False,
        feature_extractor_weights_path=str(files.state_dict), cuda=sets.device.type == "cuda",
        verbose=False, save_cpu_ram=True,
    )  # fmt: skip
    mode, peer = "legacy-tensorflow", "torch-fidelity"
    return [
        Row(f"FID {mode}", peer, ours["fid"], found["frechet_inception_distance"], "a"),
        Row(f"KID {mode}", peer, ours["kid"], found["kernel_inception_distance_mean"]),
        Row(f"IS {mode}", peer, ours["is"], found["inception_score_mean"]),
        Row(f"precision {mode}", peer, ours["precision"], found["precision"]),
        Row(f"recall {mode}", peer, ours["recall"], found["recall"]),
    ]


class Remembered(nn.Module):
    """One output of a network that is run once for each batch, whichever metric asks."""

    num_features = 2048

    def __init__(self, net: Callable[[Tensor], tuple[Tensor, Tensor]], output: int) -> None:
        super().__init__()
        self.net, self.output = net, output

    def forward(self, images: Tensor) -> Tensor:
        """Return features [B, 2048] or logits [B, 1008]."""
        return self.net(images)[self.output]


def remembering(net: Callable[[Tensor], Any]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Run a network once for each batch."""
    held: dict[bytes, tuple[Tensor, Tensor]] = {}

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        key = images.cpu().numpy().tobytes()
        if key not in held:
            with torch.no_grad():
                held[key] = net(images)
        return held[key]

    return run


def by_torchmetrics(files: Files, sets: Sets, ours: dict[str, float]) -> list[Row]:
    """torchmetrics with its own extractor, without and (FID alone) with its antialiasing."""
    from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3
    from torchmetrics.image.inception import InceptionScore
    from torchmetrics.image.kid import KernelInceptionDistance

    def net_of(antialias: bool) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        net = NoTrainInceptionV3(
            "inception-v3-compat", ["2048", "logits_unbiased"], str(files.state_dict), antialias
        ).to(sets.device)
        return remembering(net._torch_fidelity_forward)  # its forward returns the first output

    def distance(metric: Any) -> float:
        for images, real in zip(sets.images, (False, True), strict=True):
            for batch in images.split(sets.batch_size):
                metric.update(batch.to(sets.device), real=real)
        found = metric.compute()
        return float(found[0] if isinstance(found, tuple) else found)

    plain = net_of(False)
    num = len(sets.images[0])
    score = InceptionScore(Remembered(plain, 1), splits=1)
    for batch in sets.images[0].split(sets.batch_size):
        score.update(batch.to(sets.device))
    kid = KernelInceptionDistance(Remembered(plain, 0), subsets=1, subset_size=num)
    fid = FrechetInceptionDistance(Remembered(plain, 0)).to(sets.device)
    other = FrechetInceptionDistance(Remembered(net_of(True), 0)).to(sets.device)
    mode = "legacy-tensorflow"
    return [
        Row(f"FID {mode}", "torchmetrics, antialias=False", ours["fid"], distance(fid), "a"),
        Row(f"FID {mode}", "torchmetrics, default", ours["fid"], distance(other), "b"),
        Row(f"KID {mode}", "torchmetrics", ours["kid"], distance(kid)),
        Row(f"IS {mode}", "torchmetrics", ours["is"], float(score.compute()[0])),
    ]


def ten_splits(found: tuple[Features, Features]) -> list[Row]:
    """The Inception Score over the ten splits that torch-fidelity's own shuffle makes."""
    from torch_fidelity.metric_isc import isc_features_to_metric

    p = found[0].probabilities
    assert p is not None
    num = len(p) // 10 * 10
    order = np.random.RandomState(2020).permutation(num)
    ids = np.empty(num, dtype=np.int64)
    ids[order] = np.argsort(deal_splits(np.arange(num), 10), kind="stable")
    score = inception_score(p[:num], ids)
    theirs = isc_features_to_metric(p[:num].double().log())
    return [
        Row("IS, 10 splits, mean", "torch-fidelity", score.mean, theirs["inception_score_mean"]),
        Row("IS, 10 splits, std", "torch-fidelity", score.std, theirs["inception_score_std"]),
    ]


def full_rank(D: int = 512, N: int = 4096) -> list[Row]:
    """The formulas alone on covariances of full rank, as 50,000 images give in 2048 dimensions."""
    from cleanfid.fid import frechet_distance as by_cleanfid
    from pytorch_fid.fid_score import calculate_frechet_distance as by_pytorch_fid
    from torchmetrics.image.fid import _compute_fid as by_torchmetrics

    rng = np.random.default_rng(0)
    sets = [rng.gamma(k, size=(N, D)) @ rng.normal(size=(D, D)) / D**0.5 for k in (1.0, 1.2)]
    four: list[Any] = [part for x in sets for part in (x.mean(0), np.cov(x, rowvar=False))]
    value = frechet_distance(*four)
    tensors = [torch.from_numpy(part) for part in four]
    return [
        Row("FID, full rank", "clean-fid", value, float(by_cleanfid(*four))),
        Row("FID, full rank", "pytorch-fid", value, float(by_pytorch_fid(*four))),
        Row("FID, full rank", "torchmetrics", value, float(by_torchmetrics(*tensors))),
    ]


def compared(files: Files, sets: Sets) -> list[Row]:
    """Run everything and return the rows."""
    rows: list[Row] = []
    for mode in ("clean", "legacy-tensorflow", "legacy-pytorch"):
        say(f"{mode}: cdm, then its peers")
        found = ours(mode, files, sets)
        mine = numbers(found)
        rows.append(Row(f"FID {mode}", "exact", mine["fid"], exact_fid(found)))
        if mode != "legacy-pytorch":
            rows += by_cleanfid(mode, files, sets, mine)
        else:
            rows += by_pytorch_fid(files, sets, mine)
        if mode == "legacy-tensorflow":
            say("torch-fidelity")
            rows += by_torch_fidelity(files, sets, mine)
            say("torchmetrics")
            rows += by_torchmetrics(files, sets, mine)
            rows += ten_splits(found)
    say("formulas alone")
    return rows + full_rank()


def say(line: str) -> None:
    """Tell on stderr what is being run."""
    print(f"{time.monotonic() - START:6.0f} s  {line}", file=sys.stderr, flush=True)


def print_table(rows: list[Row]) -> None:
    """Print every comparison, and why some differ."""
    print(f"\n{'metric':28s} {'peer':32s} {'cdm':>12s} {'peer says':>12s} {'rel. diff.':>10s}")
    for row in rows:
        agrees = row.difference <= TOLERANCE
        mark = "" if agrees else f"  ({row.why})" if row.why else "  UNEXPLAINED"
        print(f"{row.what:28s} {row.peer:32s} {row.ours:12.6g} {row.theirs:12.6g} "
              f"{row.difference:10.1e}{mark}")  # fmt: skip
    print()
    for why in sorted({row.why for row in rows if row.why and row.difference > TOLERANCE}):
        print(f"({why}) {WHY[why]}")


def machine(device: torch.device) -> str:
    """Return what it ran on, and the versions of everything."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else (
        f"CPU {platform.machine()}, {torch.get_num_threads()} threads of {os.cpu_count()} cores"
    )  # fmt: skip
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{where}; torch {torch.__version__}, scipy {version('scipy')}; {packages}"


def main() -> None:
    """Run the comparison; ends with 1 if a difference is not explained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=128, help="images of each of two sets")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", type=Path, help="directory with both published files")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    accept_disp()
    for name in ("cleanfid", "torch_fidelity", "pytorch_fid", "torchmetrics"):
        try:
            importlib.import_module(name)
        except ImportError:
            sys.exit(f"{name} is not installed: pip install -e '.[bench]'")
    device = torch.device(arguments.device)
    backends: tuple[Any, ...] = torch.backends.cudnn, torch.backends.cuda.matmul
    for backend in backends:
        backend.allow_tf32 = False  # all in float32: TF32 alone moves FID by more than 1e-4
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = weights(folder, arguments.weights)
        images = [drawn(arguments.num, arguments.resolution, seed, contrast)
                  for seed, contrast in ((1, 30), (2, 40))]  # fmt: skip
        folders = [written(each, folder / str(i)) for i, each in enumerate(images)]
        sets = Sets((images[0], images[1]), (folders[0], folders[1]), arguments.batch_size, device)
        rows = compared(files, sets)
    print(machine(device))
    print(f"2 × {arguments.num} images of {arguments.resolution} pixels, {files.what}")
    print_table(rows)
    sys.exit(any(row.difference > TOLERANCE and not row.why for row in rows))


if __name__ == "__main__":
    main()
