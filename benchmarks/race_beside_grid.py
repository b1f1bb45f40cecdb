r"""A race beside a grid of as many evaluations, in one run, each by the command that a user types.

    python benchmarks/race_beside_grid.py [--preset cifar-sr16-32] [--budget-evals 650000]
    python benchmarks/race_beside_grid.py --preset tiny-sr8-16 --points 3 --num 600 --steps 1 \
        --budget-evals 900

Nothing is trained: the stage of a preset whose last layer is still zero, so that all points have
the same images. None is beaten or paused then, and every round fills the stores of all points.
The judge is the classifier of the preset of that name, with 256 features. What each part of both
took is told by sweep_cost.py. The grid has a batch of up to 1024 on a GPU, a race one of 256.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import machine

from cdm_cli.__version__ import __version__
from cdm_cli.cascade.snapshot import save_ema
from cdm_cli.cascade.stage import build_net
from cdm_cli.cascade.stagefile import write_stage_file
from cdm_cli.config import ClassifierConfig, StageConfig
from cdm_cli.data.schema import PartSpec, StoreSpec
from cdm_cli.data.store import create
from cdm_cli.nets.classifier import Classifier
from cdm_cli.overrides import with_overrides
from cdm_cli.plans import DataInfo, StageFile
from cdm_cli.presets import preset

CLASSES = tuple(f"class {number}" for number in range(10))
REAL = 5000  # images of train
SHARE = 3 / 8  # of T, the largest s, as in the paper


def write_stage(directory: Path, name: str, *settings: str) -> StageConfig | ClassifierConfig:
    """Write a stage as its training begins; return its configuration."""
    plan = with_overrides(preset(name), settings)
    data = DataInfo(name="data.h5", digest="0" * 64, classes=CLASSES, num_train=REAL, num_val=0)
    torch.manual_seed(0)
    stage = plan.stage
    net = Classifier(stage) if isinstance(stage, ClassifierConfig) else build_net(stage)
    directory.mkdir(parents=True)
    write_stage_file(directory, StageFile(cdm_version=__version__, plan=plan, data=data))
    save_ema(directory, net.state_dict(), step=1)
    return stage


def write_images(path: Path, kind: str, part: str, num: int, sides: list[int]) -> None:
    """Write drawn images, the classes in turn."""
    spec = StoreSpec(
        kind=kind,  # pyright: ignore[reportArgumentType]
        parts={part: PartSpec(num=num, resolutions=dict.fromkeys(sides, 3))},  # pyright: ignore[reportArgumentType]
        classes=list(CLASSES),
        provenance={},
        block_size=num,
    )
    rng = np.random.default_rng(num)
    arrays = {
        f"images/{side}": rng.integers(0, 256, (num, side, side, 3), np.uint8) for side in sides
    }
    labels = {"ids": np.arange(num), "labels": np.arange(num) % len(CLASSES)}
    with create(path, spec) as store:
        store.parts[part].write_block(0, {**arrays, **labels})  # pyright: ignore[reportArgumentType]


def write_workspace(name: str, num: int) -> int:
    """Write a stage, a judge, low-resolution samples and real images; return T."""
    stage = write_stage(Path("runs/sr"), name)
    assert isinstance(stage, StageConfig)
    assert stage.conditioning is not None
    high, low = stage.model.resolution, stage.conditioning.resolution
    write_stage(Path("runs/judge"), "classifier", f"resolution={high}", "num_classes=10")
    write_images(Path("lowres.h5"), "samples", "", num, [low])
    write_images(Path("data.h5"), "prepared", "train", REAL, [low, high])
    return stage.conditioning.highest_s


def timed(what: str, words: list[str]) -> float:
    """Run a sweep under sweep_cost.py, print what that prints; return its seconds."""
    cost = Path(__file__).with_name("sweep_cost.py")
    print(f"\n{what}: cdm {' '.join(words)}", flush=True)
    start = time.monotonic()
    subprocess.run([sys.executable, str(cost), *words], check=True, stderr=subprocess.DEVNULL)
    return time.monotonic() - start


def main() -> None:
    """Race, then fill a grid of as many evaluations, in a directory that is removed afterwards."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="cifar-sr16-32")
    parser.add_argument("--points", type=int, default=13)
    parser.add_argument("--num", type=int, default=10_000, help="images of a point, at most")
    parser.add_argument("--steps", type=int, default=25, help="evaluations of an image")
    parser.add_argument("--budget-evals", type=int, default=650_000)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    asked = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as home:
        os.chdir(home)
        most = write_workspace(asked.preset, asked.num) * SHARE
        s = [str(round(most * place / (asked.points - 1))) for place in range(asked.points)]
        words = ["sweep-s", "--augment", "non-truncated", "--model", "sr", "--features", "judge"]
        words += ["--steps", str(asked.steps), "--device", asked.device]
        timed("before both, for caches and the statistics of real images",
              [*words, "--s", "0", "--num", "20", "-o", "first"])  # fmt: skip
        words += ["--s", ",".join(s)]
        budget = ["--race", "--budget-evals", str(asked.budget_evals)]
        race = timed("race", [*words, *budget, "--num", str(asked.num), "-o", "race"])
        rounds = json.loads(Path("race/race.json").read_text())["rounds"]
        num = rounds[-1]["evaluations"] // (asked.points * asked.steps)
        grid = timed("grid", [*words, "--num", str(num), "-o", "grid"])
        print(
            f"\n{rounds[-1]['evaluations']} evaluations, imports included: race {race:.1f} s, in "
            f"{len(rounds)} rounds of {', '.join(str(one['num']) for one in rounds)} images of "
            f"each point; grid of {num} images of each {grid:.1f} s; {race / grid:.2f} times"
        )
        os.chdir("/")


if __name__ == "__main__":
    main()
