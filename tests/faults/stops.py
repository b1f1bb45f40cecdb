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
from tests.jobs.sweep.sweeping import write_workspace
from tests.tiny import contents, sr_config

JUDGED = "--features judge --device cpu --batch-size 8"
COMMANDS = {
    "train": [
        *"train base --preset tiny-base8 --device cpu --exact --steps 300".split(), *SMALL,
        *"--set training.save_every=100 --set training.log_every=1".split(),
    ],
    "sample": "sample --num 960 --batch-size 8 --device cpu".split(),
    "upsample": "upsample lowres.h5 --model sr --s 5 --device cpu --batch-size 1".split(),
    "sweep-s": f"sweep-s lowres.h5 --s {','.join(map(str, range(15)))} {JUDGED}".split(),
    "race": f"sweep-s lowres.h5 --s 0,2,4,6,8 --race --budget-evals 3000 {JUDGED}".split(),
    "tune": f"tune-schedule lowres.h5 --s 5 --steps 4 --trials 20 --num 24 {JUDGED}".split(),
    "elbo": "eval elbo runs/sr --s 5 --num 24 --terms 0 --device cpu --batch-size 2".split(),
    "cas": "eval cas lowres.h5 --steps 60 --batch-size 128 --net small --device cpu".split(),
}  # fmt: skip
WAYS = ("alone", "--gpus 2", "two of torchrun", "--gpus 2, late", "two of torchrun, late")
NAMES = [f"{command}, {way}" for command in COMMANDS for way in WAYS]
MOST = 12  # stops of one command; then it may finish
LATE = 1.0
TOTAL = {"train": 300, "sample": 15}  # steps, blocks
STOPPED = "stopped (?:by|waiting:) (?:SIGTERM|another process)"
SAVED = {
    "train": rf"{STOPPED} after step (\d+) of \d+ — runs/base/checkpoints holds that step",
    "sample": rf"{STOPPED} — (\d+) of \d+ (?:block is|blocks are) complete",
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
    words, late = COMMANDS[command], way.endswith("late")
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


def lay_out_for(command: str, home: Path) -> None:
    """Write what a command reads."""
    if command in SAVED:
        lay_out(command, home)
        return
    home.mkdir()
    if pid := os.fork():  # torch is used in no process that another one is forked from
        assert not any(wait_for([pid], 300).values())
        return
    code = 1
    try:
        os.chdir(home)
        write_workspace(home, sr_config(4, 8))
        code = 0
    finally:
        os._exit(code)


def count_done(command: str, where: Path) -> int:
    """Return the last step that was logged, or the number of complete blocks; of others 0."""
    if command not in SAVED:
        return 0
    if command == "sample":
        store = where / "lowres.h5"
        return count_blocks(store) if store.exists() else 0
    log = where / "runs/base/metrics.jsonl"
    steps = re.findall(r'"step": (\d+)', log.read_text()) if log.exists() else []
    return int(steps[-1]) if steps else 0


def find_fault(command: str, where: Path, line: str, before: int, done: int) -> str:
    """Return what is wrong with how a process ended that was asked to stop at `done`."""
    found = re.search(SAVED.get(command, "^$"), line)
    if found is None:
        early = done in (before, TOTAL.get(command)) and re.search(STOPPED, line)  # or over
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
        told = re.sub(r"\d+", "N", line.removeprefix("cdm: error: ")).split(" — Next")[0]
        counted.ends[f"{code} {told}" if code else "0"] += 1
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
    if read_end(home) != read_end(whole):
        counted.failed.append("the end differs")


def read_end(where: Path) -> dict[str, Any]:
    """Return what must be the same in the end: all stores, and the averaged weights."""
    stores = {str(path.relative_to(where)): contents(path) for path in where.rglob("*.h5")}
    return stores | {name: data for name, data in state(where).items() if "ema" in name}


def stop_often(name: str, home: Path, rounds: int, rng: random.Random) -> Counted:
    """Stop a command in some rounds, after one that nobody disturbed."""
    counted, command = Counted(), name.split(",")[0]
    inputs, whole = home / "inputs", home / "whole"
    lay_out_for(command, inputs)
    shutil.copytree(inputs, whole)
    codes = wait_for(list(start_all(f"{command}, alone", whole)), 300)
    assert not any(codes.values()), (whole.with_name("whole said 0")).read_text()
    for number in range(rounds):
        round_of(name, home / str(number), inputs, whole, rng, counted)
    return counted


def main() -> int:
    """Return 1 if a promise did not hold."""
    warm()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {NAMES}")
    asked = parser.parse_args()
    rng, failed = random.Random(asked.seed), 0
    for name in asked.names or NAMES:
        with tempfile.TemporaryDirectory() as directory:
            counted = stop_often(name, Path(directory), asked.rounds, rng)
        say(f"{name}: {counted.ends.total()} ends, {len(counted.failed)} failed")
        for end, num in counted.ends.most_common():
            say(f"  {num} times {end}")
        for fault in counted.failed:
            say(f"  failed: {fault}")
        failed += len(counted.failed)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
