"""Real `cdm` processes, killed at random moments until they have finished: for as long as asked.

    python -m tests.faults.longer --minutes 10 [--seed 0] [--every-call]

Each round takes one command in a fresh directory, kills it with SIGKILL after a random while
(at times all of its processes, at times the first alone), types it again, and compares the
end with a run that nobody disturbed. In between, what must hold at any moment is checked.
With --every-call, first of all every system call of every small job is broken in every mode.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from tests.drawings import class_images, write_zip
from tests.faults.children import killed
from tests.faults.harness import every_fault
from tests.faults.jobs import JOBS, state
from tests.faults.promises import broken_promises
from tests.tiny import arrays_of, base_config, model, sr_config, write_stage, write_store

SMALL = (
    "--set", "model.base_channels=8", "--set", "model.num_heads=1", "--set", "schedule.T=20",
    "--set", "training.grid_every=0", "--set", "training.save_every=3",
)  # fmt: skip
COMMANDS = {
    "sample": "sample --num 1500 --keep-s 5 --device cpu".split(),
    "sample, two processes": "sample --num 1500 --keep-s 5 --device cpu --gpus 2".split(),
    "upsample": "upsample lowres.h5 --s 5 --device cpu".split(),
    "train": [*"train base --preset tiny-base8 --device cpu --steps 60".split(), *SMALL],
    "prepare": "prepare images.zip --resolution 8 --resolution 32 --workers 2".split(),
}
MOST = 40  # kills of one command; then it may finish


@dataclass
class Counted:
    """Kills that were tried of a command, and every promise that did not hold."""

    kills: int = 0
    rounds: int = 0
    failed: list[str] = field(default_factory=list)


def lay_out(name: str, home: Path) -> None:
    """Write what a command reads."""
    home.mkdir()
    if name.startswith("sample"):
        write_stage(home / "runs/base", base_config(steps=10, channel_mult=(1,)))
    elif name == "upsample":
        lowres = arrays_of(600, [8], z=(5,))
        write_store(home / "lowres.h5", "samples", {"": lowres})
        write_stage(home / "runs/sr", sr_config(model=model(16, channel_mult=(1,))))
    elif name == "train":
        write_store(home / "data.h5", "prepared", {"train": arrays_of(64, [8])})
    else:
        write_zip(home / "images.zip", class_images(per_class=700, height=40, width=40))


def started(name: str, home: Path) -> subprocess.Popen[bytes]:
    """Start a command as a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "cdm_cli", *COMMANDS[name]],
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def undisturbed(name: str, home: Path) -> tuple[dict[str, bytes], float]:
    """Run a command once; return what it leaves, and how long it took."""
    lay_out(name, home)
    start, process = time.monotonic(), started(name, home)
    said = process.communicate()[1]
    assert process.returncode == 0, said.decode()
    return state(home), time.monotonic() - start


def round_of(
    name: str, home: Path, wanted: dict[str, bytes], seconds: float, rng: random.Random,
    counted: Counted,
) -> None:  # fmt: skip
    """Kill a command again and again, in one directory, until it ends by itself."""
    lay_out(name, home)
    inputs = home.with_name(f"{home.name} inputs")
    shutil.copytree(home, inputs)
    for kill in range(MOST + 1):
        process = started(name, home)
        patience = rng.uniform(0.3, 1.0) * seconds if kill < MOST else None
        try:
            said = process.communicate(timeout=patience)[1]
        except subprocess.TimeoutExpired:
            _kill(process, everyone=rng.random() < 0.7)
            counted.kills += 1
            counted.failed += [f"{name}: {fault}" for fault in broken_promises(home, [], inputs)]
            continue
        if process.returncode != 0:
            counted.failed.append(f"{name}: ends with {process.returncode}: {said.decode()[-400:]}")
        break
    counted.rounds += 1
    found = state(home)
    names = sorted(found.keys() | wanted.keys())
    counted.failed += [f"{name}: {n} differs" for n in names if found.get(n) != wanted.get(n)]
    shutil.rmtree(home)
    shutil.rmtree(inputs)


def _kill(process: subprocess.Popen[bytes], *, everyone: bool) -> None:
    """Kill all processes of a command at once, or the first; the others end with it."""
    if everyone:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while _group_runs(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)


def _group_runs(group: int) -> bool:
    """Whether a process of the group is there that is no zombie."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] not in "ZX":
                return True
    return False


def every_call(home: Path) -> int:
    """Break every call of every job in every mode; return how many cases failed."""
    failed = 0
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for name in JOBS:

            def kill(*args, **how):
                return pool.submit(killed, *args, **how).result()

            tally = every_fault(name, home / name, kill)
            say(str(tally))
            for fault in tally.failed:
                say(f"  {fault}")
            failed += len(tally.failed)
    return failed


def say(line: str) -> None:
    """Write one line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Return 1 if a promise did not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every-call", action="store_true", help="first break every single call")
    asked = parser.parse_args()
    rng, counts = random.Random(asked.seed), {name: Counted() for name in COMMANDS}
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        failed = every_call(home) if asked.every_call else 0
        deadline = time.monotonic() + 60 * asked.minutes
        whole = {name: undisturbed(name, home / f"{name} whole") for name in COMMANDS}
        turn = 0
        while time.monotonic() < deadline:
            name = list(COMMANDS)[turn % len(COMMANDS)]
            round_of(name, home / str(turn), *whole[name], rng, counts[name])
            turn += 1
    for name, counted in counts.items():
        say(f"{name}: {counted.rounds} rounds, {counted.kills} kills, {len(counted.failed)} failed")
        for fault in counted.failed:
            say(f"  {fault}")
    return int(bool(failed or any(counted.failed for counted in counts.values())))


if __name__ == "__main__":
    sys.exit(main())
