"""Real `cdm` processes, killed at random moments until they have finished: for as long as asked.

    python -m tests.faults.longer --minutes 10 [--seed 0] [--every-call [JOB …]]

Each round takes one command in a fresh directory, kills it with SIGKILL after a random while
(at times all of its processes, at times the first alone), types it again, and compares the
end with a run that nobody disturbed. In between, what must hold at any moment is checked.
With --every-call, first of all every system call of every small job, or of those named, is
broken in every mode; the power fails there, and a second process begins there.
"""

import argparse
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from cdm_cli.__main__ import main as cdm_main
from tests.drawings import class_images, write_zip
from tests.faults.children import killed
from tests.faults.harness import every_fault
from tests.faults.jobs import JOBS, state
from tests.faults.power import every_failure
from tests.faults.promises import broken_promises
from tests.faults.two_jobs import at_every_call
from tests.tiny import arrays_of, base_config, model, sr_config, write_stage, write_store

SMALL = (
    "--set", "model.base_channels=8", "--set", "model.num_heads=1", "--set", "schedule.T=20",
    "--set", "training.grid_every=0", "--set", "training.save_every=3",
)  # fmt: skip
COMMANDS = {
    "sample": "sample --num 320 --keep-s 5 --device cpu".split(),
    "sample, two processes": "sample --num 320 --keep-s 5 --device cpu --gpus 2".split(),
    "upsample": "upsample lowres.h5 --s 5 --device cpu".split(),
    "train": [*"train base --preset tiny-base8 --device cpu --steps 30".split(), *SMALL],
    "prepare": "prepare images.zip --resolution 8 --resolution 32 --workers 2".split(),
}
ALL = 10**6  # calls: as many as there are
MOST = 8  # kills of one command; then it may finish


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
        lowres = arrays_of(200, [8], z=(5,))
        write_store(home / "lowres.h5", "samples", {"": lowres})
        write_stage(home / "runs/sr", sr_config(model=model(16, channel_mult=(1,))))
    elif name == "train":
        write_store(home / "data.h5", "prepared", {"train": arrays_of(64, [8])})
    else:
        write_zip(home / "images.zip", class_images(per_class=150, height=40, width=40))


class Process:
    """A `cdm` in a process group of its own.

    It is forked from here, where torch is imported and not used: that saves the seconds which
    a new interpreter takes. Processes that it starts itself are new ones.
    """

    def __init__(self, name: str, home: Path) -> None:
        self._said = home.with_name(f"{home.name} said")
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.chdir(home)
            said = os.open(self._said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            sys.stdout, sys.stderr = open(1, "w"), open(2, "w")
            sys.argv = ["cdm", *COMMANDS[name]]
            try:
                cdm_main()
            except SystemExit as leaving:
                os._exit(int(leaving.code or 0))
            finally:
                os._exit(1)

    def wait(self, patience: float = 600.0) -> int | None:
        """Return its exit code, or None if it still runs after so many seconds."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        return None

    def said(self) -> str:
        """Return the end of what it wrote."""
        return self._said.read_text()[-600:]

    def kill(self, *, everyone: bool) -> None:
        """Kill all of its processes at once, or it alone; the others end with it."""
        (os.killpg if everyone else os.kill)(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        deadline = time.monotonic() + 30
        while _group_runs(self.pid) and time.monotonic() < deadline:
            time.sleep(0.02)


@dataclass
class Whole:
    """The inputs of a command, what it leaves undisturbed, and about how long it takes."""

    inputs: Path
    state: dict[str, bytes]
    seconds: float


def undisturbed(name: str, home: Path) -> Whole:
    """Run a command twice; the second time nothing has to be imported."""
    inputs = home / f"{name} inputs"
    lay_out(name, inputs)
    for number in (1, 2):
        where = home / f"{name} whole {number}"
        shutil.copytree(inputs, where)
        start, process = time.monotonic(), Process(name, where)
        assert process.wait() == 0, process.said()
    return Whole(inputs, state(where), time.monotonic() - start)


def round_of(name: str, home: Path, whole: Whole, rng: random.Random, counted: Counted) -> None:
    """Kill a command again and again, in one directory, until it ends by itself."""
    shutil.copytree(whole.inputs, home)
    for kill in range(MOST + 1):
        process = Process(name, home)
        code = process.wait(rng.uniform(0, 0.7) * whole.seconds if kill < MOST else 600.0)
        if code is not None:
            if code:
                counted.failed.append(f"ends with {code}: {process.said()}")
            break
        process.kill(everyone=rng.random() < 0.7)
        counted.kills += 1
        counted.failed += broken_promises(home, [], whole.inputs)
    counted.rounds += 1
    found, wanted = state(home), whole.state
    files = sorted(found.keys() | wanted.keys())
    counted.failed += [f"{file} differs" for file in files if found.get(file) != wanted.get(file)]
    shutil.rmtree(home)


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


def every_call(home: Path, names: Sequence[str]) -> int:
    """Break every call of jobs in every mode, let the power fail and a second process begin there.

    Return how many cases failed.
    """
    failed = 0
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:

        def kill(*args, **how):
            return pool.submit(killed, *args, **how).result()

        for name in names:
            for tally in (
                every_fault(name, home / f"{name}, broken", kill),
                every_failure(name, home / f"{name}, power", most=ALL, reruns=ALL),
                at_every_call(name, home / f"{name}, twice", ALL),
            ):
                say(str(tally))
                for fault in tally.failed:
                    say(f"  {fault}")
                failed += len(tally.failed)
    return failed


def kills(home: Path, minutes: float, rng: random.Random, counts: dict[str, Counted]) -> None:
    """Kill one command after the other at random moments, for so long."""
    whole = {name: undisturbed(name, home) for name in COMMANDS}
    deadline = time.monotonic() + 60 * minutes
    turn = 0
    while time.monotonic() < deadline:
        name = list(COMMANDS)[turn % len(COMMANDS)]
        round_of(name, home / str(turn), whole[name], rng, counts[name])
        turn += 1


def say(line: str) -> None:
    """Write one line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def warm() -> None:
    """Import what the commands import, before any of them is forked."""
    for job in JOBS.values():
        for module in job.needs:
            importlib.import_module(f"cdm_cli.jobs.{module}")


def main() -> int:
    """Return 1 if a promise did not hold."""
    warm()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--every-call", nargs="*", choices=JOBS, metavar="JOB", help="first break every single call"
    )
    asked = parser.parse_args()
    rng, counts = random.Random(asked.seed), {name: Counted() for name in COMMANDS}
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        names = None if asked.every_call is None else asked.every_call or list(JOBS)
        failed = every_call(home, names) if names else 0
        if asked.minutes:
            kills(home, asked.minutes, rng, counts)
    for name, counted in counts.items():
        say(f"{name}: {counted.rounds} rounds, {counted.kills} kills, {len(counted.failed)} failed")
        for fault in counted.failed:
            say(f"  {fault}")
    broken = sum(len(counted.failed) for counted in counts.values())
    say(f"in all: {sum(counted.kills for counted in counts.values())} kills, {broken} failed")
    return int(bool(failed or broken))


if __name__ == "__main__":
    sys.exit(main())
