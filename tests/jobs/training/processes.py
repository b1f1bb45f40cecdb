"""Trainings in several processes, and what must be the same in any number of them.

    python -m tests.jobs.training.processes

trains exactly in 1, 2, 4 and 8 processes, and from 4 to 1 and back, and compares all bits.
"""

import json
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load

from cdm_cli.jobs.runtime.launch import launch_processes
from cdm_cli.jobs.training.train import run, run_in
from cdm_cli.options.sampling import Compute
from cdm_cli.options.training import TrainOptions
from tests.cuda.rig import address, in_turn
from tests.tiny import Told
from tests.trained import CLASSIFIER, SMALL, SR, options, rows, write_data

KINDS = {
    "base": {"preset": "tiny-base8", "small": (*SMALL, "model.dropout=0.2")},
    "sr": {
        "preset": "tiny-sr8-16",
        "small": (*SR, "model.dropout=0.2", "conditioning.blur=true"),
    },
    "classifier": {"preset": "tiny-classifier", "small": CLASSIFIER},
}
KEEP_ALL = "training.keep=9"


def asked(home: Path, kind: str, name: str, **changes: Any) -> TrainOptions:
    """Return the options of a training with dropout and augmentation, called by a name."""
    return options(home, KEEP_ALL, name=name, **KINDS[kind], **changes)


def train_in(processes: int, *trainings: TrainOptions) -> Told:
    """Train one after the other in so many processes; return what was said."""
    told = Told()
    if processes == 1:
        for training in trainings:
            run(training, told)
    else:
        jobs = [(run_in, training, address()) for training in trainings]
        launch_processes(partial(in_turn, jobs), Compute(device="cpu", gpus=processes), told)
    return told


def bits(directory: Path) -> dict[str, object]:
    """Return all numbers that a training has left, without how many processes left them."""
    found: dict[str, object] = {"log": rows(directory, but=("images_per_second",))}
    for path in [directory / "ema.safetensors", *directory.glob("checkpoints/*/*.safetensors")]:
        tensors = load(path.read_bytes()).items()
        place = path.relative_to(directory)
        found |= {f"{place}/{name}": tensor.numpy().tobytes() for name, tensor in tensors}
    for path in directory.glob("checkpoints/*/state.json"):
        state = json.loads(path.read_text())
        found[path.parent.name] = {k: v for k, v in state.items() if k != "processes"}
    return found


def move(home: Path, kind: str) -> str:
    """Train in 4 processes, go on in 1 and then in 4 again; return the name."""
    name = f"{kind}-moved"
    for processes, steps in ((4, 2), (1, 3), (4, 5)):
        train_in(processes, asked(home, kind, name, exact=True, steps=steps))
    shutil.rmtree(home / "runs" / name / "checkpoints/step-00000003")  # which one run has not
    return name


def main() -> None:
    """Compare 2, 4 and 8 processes, and a training that changes their number, with one."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        write_data(home / "data.h5")
        for processes in (1, 2, 4, 8):
            names = {kind: f"{kind}{processes}" for kind in KINDS}
            train_in(processes, *(asked(home, k, n, exact=True) for k, n in names.items()))
        for kind in KINDS:
            others = [f"{kind}{processes}" for processes in (2, 4, 8)]
            if kind != "classifier":  # whose learning rate falls until the last step asked for
                others.append(move(home, kind))
            for name in others:
                assert bits(home / "runs" / name) == bits(home / f"runs/{kind}1"), name
                sys.stdout.write(f"{name}: the bits of one process\n")


if __name__ == "__main__":
    main()
