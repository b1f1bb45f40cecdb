"""What a checkpoint costs: the pause of training, bytes, rate, and its share of the disk's rate.

    python benchmarks/checkpoint_speed.py [--preset imagenet-base32] [--directory DIR] [--times 3]

The state is that of the preset with random weights, after one step; nothing is trained. Beside it
a plain file of as many bytes is written and synced, to the same disk in the same run. Then the last
checkpoint is read and checked, as a training that resumes does; what the system keeps of it in
memory is read from there.
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import torch
from machine import machine

from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.training.files import Saver, resume, take_snapshot
from cdm_cli.jobs.training.objective import build_objective
from cdm_cli.jobs.training.step import Trainer
from cdm_cli.presets import preset


def trainer_of(name: str, device: torch.device) -> Trainer:
    """Build the trainer of a preset, whose optimizer has its moments."""
    plan = preset(name)
    objective = build_objective(plan.stage, (), plan.training, device, "bf16")
    trainer = Trainer(objective, plan.training, Session(device), cosine=False)
    for parameter in trainer.parameters:
        parameter.grad = torch.randn_like(parameter)
    trainer.optimizer.step()
    for parameter in trainer.parameters:
        parameter.grad = None
    return trainer


def synced(path: Path, size: int) -> float:
    """Write and sync a plain file; return the seconds."""
    piece = os.urandom(2**24)
    start = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(size // len(piece)):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    return time.perf_counter() - start


def main() -> None:
    """Save some times, and print what each took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--preset", default="imagenet-base32")
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(machine())
    trainer = trainer_of(given.preset, device)
    where = Path(tempfile.mkdtemp(dir=given.directory))
    try:
        parts = take_snapshot(trainer, 0).parts
        size = sum(x.numel() * x.element_size() for part in parts.values() for x in part.values())
        plain = synced(where / "plain", size)
        print(f"{size / 1e9:.2f} GB; a plain file of that size: {plain:.2f} s, "
              f"{size / plain / 1e9:.2f} GB/s")  # fmt: skip
        saver = Saver(where, trainer, 1)
        saver.prepare()
        time.sleep(10)  # in a training there are steps
        for step in range(1, given.times + 1):
            torch.cuda.synchronize() if device.type == "cuda" else None
            start = time.perf_counter()
            saver.save(step)
            pause = time.perf_counter() - start
            saver.wait()
            whole = time.perf_counter() - start
            print(f"save {step}: training waits {pause:.2f} s, on the disk after {whole:.2f} s, "
                  f"{size / whole / 1e9:.2f} GB/s, {100 * plain / whole:.0f} % of the plain file's "
                  "rate")  # fmt: skip
        start = time.perf_counter()
        resume(where, trainer, print)
        whole = time.perf_counter() - start
        print(f"resume: {whole:.2f} s, {size / whole / 1e9:.2f} GB/s")
    finally:
        shutil.rmtree(where)


if __name__ == "__main__":
    main()
