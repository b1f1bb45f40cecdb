"""Real `cdm` processes that are asked to stop at random moments, until they have finished.

    python -m tests.faults.stops --rounds 5 [--seed 0] [NAME …]

Each round types one command again and again, and sends SIGTERM after a random while: to the one
process, to the parent of two (`--gpus 2`), or to each of two as torchrun and srun start them, a
moment apart. "late": leaving the others takes a second, as with NCCL. Whoever has ended a step or
a block before must say after which step, or how many blocks are complete, and have saved them; the
end is compared with a run that nobody disturbed.
"""

import argparse
import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cdm_cli.__main__ import main as cdm_main
from cdm_cli.jobs.runtime import session
from cdm_cli.jobs.runtime.world import World
from tests.faults.inputs import count_blocks
from tests.faults.jobs import state
from tests.faults.longer import SMALL, lay_out, say, warm
from tests.tiny import contents

STEPS = 300
TRAIN = [
    *f"train base --preset tiny-base8 --device cpu --exact --steps {STEPS}".split(), *SMALL,
    *"--set training.save_every=100 --set training.log_every=1".split(),
]  # fmt: skip
SAMPLE = "sample --num 960 --batch-size 8 --device cpu".split()
WAYS = ("alone", "--gpus 2", "two of torchrun", "--gpus 2, late", "two of torchrun, late")
NAMES = [f"{command}, {way}" for command in ("train", "sample") for way in WAYS]
MOST = 12  # stops of one command; then it may finish
LATE = 1.0
SAVED = {
    "train": r"stopped by (?:SIGTERM|another process) after step (\d+) of \d+ — "
    "runs/base/checkpoints holds that step",
    "sample": r"stopped (?:by|waiting:) SIGTERM — (\d+) of \d+ blocks are complete",
}


@dataclass
class Counted:
    """Stops that were tried of a command, how they ended, and what did not hold."""

    ends: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)


def leave_late(leave: Callable[[World], None], world: World) -> None:
    """Leave the others as with NCCL, which takes its time."""
    if world.size > 1:
        time.sleep(LATE)
    leave(world)


def make_late() -> None:
    """Let this process leave the others late."""
    session.distributed.leave_world = partial(leave_late, session.distributed.leave_world)


def run_late(task: Any, report: Any, world: World) -> Any:
    """Do a task as a process that `--gpus 2` started, and leave late."""
    make_late()
    return task(report, world)


def start(words: Sequence[str], where: Path, said: Path, *, late: bool, **env: str) -> int:
    """Fork a `cdm`; return its process id. The environment says which of several it is."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.chdir(where)
        os.environ.update(env)
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        sys.stdout, sys.stderr = open(os.devnull, "w"), open(2, "w")
        sys.argv = ["cdm", *words]
        if late and env:
            make_late()
        elif late:
            _hand_over_late()
        cdm_main()
    except SystemExit as leaving:
        os._exit(int(leaving.code or 0))
    finally:
        os._exit(1)


def _hand_over_late() -> None:
    """Let the processes that this one starts leave late."""
    launched = session.launch_processes
    session.launch_processes = lambda task, *rest: launched(partial(run_late, task), *rest)


def start_all(name: str, where: Path) -> dict[int, Path]:
    """Start the processes of a command; return by process id the file that has what it says."""
    command, way = name.split(", ", 1)
    words, late = TRAIN if command == "train" else SAMPLE, way.endswith("late")
    said = [where.with_name(f"{where.name} said {rank}") for rank in (0, 1)]
    if way.startswith("two"):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        env = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return {
            start(words, where, said[rank], late=late, RANK=str(rank), LOCAL_RANK=str(rank), **env):
            said[rank] for rank in (0, 1)
        }  # fmt: skip
    more = ["--gpus", "2"] if way.startswith("--gpus") else []
    return {start([*words, *more], where, said[0], late=late): said[0]}


def wait_for(pids: Sequence[int], patience: float) -> dict[int, int]:
    """Return the exit codes of those that have ended within so many seconds."""
    codes: dict[int, int] = {}
    deadline = time.monotonic() + patience
    while len(codes) < len(pids) and time.monotonic() < deadline:
        for pid in set(pids) - codes.keys():
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                codes[pid] = os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return codes


def count_done(command: str, where: Path) -> int:
    """Return the last step that was logged, or the number of complete blocks."""
    if command == "sample":
        store = where / "lowres.h5"
        return count_blocks(store) if store.exists() else 0
    log = where / "runs/base/metrics.jsonl"
    steps = re.findall(r'"step": (\d+)', log.read_text()) if log.exists() else []
    return int(steps[-1]) if steps else 0


def find_fault(command: str, where: Path, line: str, before: int, done: int) -> str:
    """Return what is wrong with how a process ended that was asked to stop at `done`."""
    found = re.search(SAVED[command], line)
    if found is None:
        early = done in (before, STEPS) and "stopped by SIGTERM" in line  # or over
        return "" if early else f"at {done} of before {before}: {line}"
    saved = int(found[1])
    if saved < done:
        return f"only {saved} is saved of {done}: {line}"
    if command == "train" and not (where / f"runs/base/checkpoints/step-{saved:08}").is_dir():
        return f"no checkpoint {saved}: {line}"
    return ""


def stop_once(name: str, where: Path, rng: random.Random, longest: float, counted: Counted) -> bool:
    """Start a command and ask it to stop after a while; return whether it goes on next time."""
    command, before = name.split(",")[0], count_done(name.split(",")[0], where)
    said = start_all(name, where)
    codes = wait_for(list(said), rng.uniform(0, longest))
    done = count_done(command, where)
    for pid in said.keys() - codes.keys():
        os.kill(pid, signal.SIGTERM)
        time.sleep(rng.choice((0, 0, 0.003, 0.03)))
    codes |= wait_for([pid for pid in said if pid not in codes], 120)
    for pid, path in said.items():
        code, line = codes.get(pid), (path.read_text().strip().splitlines() or [""])[-1]
        saved = re.search(SAVED[command], line)
        counted.ends[f"{code}" + (" saved" if saved else "")] += 1
        fault = "" if code == 0 else find_fault(command, where, line, before, done)
        if code not in (0, 75) or fault:
            counted.failed.append(f"code {code}: {fault or line}")
    return any(codes.get(pid) for pid in said)


def round_of(name: str, home: Path, inputs: Path, whole: Path, rng: random.Random,
             counted: Counted) -> None:  # fmt: skip
    """Stop a command again and again, until it has ended by itself; compare its end."""
    shutil.copytree(inputs, home)
    longest = 8.0 if "gpus" in name else 4.0
    goes_on = True
    for _ in range(MOST):
        if not (goes_on := stop_once(name, home, rng, longest, counted)):
            break
    if goes_on:
        codes = wait_for(list(start_all(name, home)), 300)
        if any(codes.values()):
            counted.failed.append(f"in the end {codes}")
    command = name.split(",")[0]
    same = (
        contents(home / "lowres.h5") == contents(whole / "lowres.h5")
        if command == "sample"
        else _bytes(home) == _bytes(whole)
    )
    if not same:
        counted.failed.append("the end differs")


def _bytes(where: Path) -> dict[str, bytes]:
    return {name: data for name, data in state(where).items() if "ema" in name}


def main() -> int:
    """Return 1 if a promise did not hold."""
    warm()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {NAMES}")
    asked = parser.parse_args()
    rng, failed = random.Random(asked.seed), 0
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        for command in ("train", "sample"):
            lay_out(command, home / command)
            shutil.copytree(home / command, home / f"{command} whole")
            wait_for(list(start_all(f"{command}, alone", home / f"{command} whole")), 300)
        for name in asked.names or NAMES:
            counted, command = Counted(), name.split(",")[0]
            for number in range(asked.rounds):
                where = home / f"{name} {number}"
                round_of(name, where, home / command, home / f"{command} whole", rng, counted)
            say(f"{name}: {dict(counted.ends)}, {len(counted.failed)} failed")
            for fault in counted.failed:
                say(f"  {fault}")
            failed += len(counted.failed)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
