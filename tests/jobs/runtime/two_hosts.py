"""Two hosts on loopback: a process for each, in a directory of its own, joined as by torchrun.

    python -m tests.jobs.runtime.two_hosts

runs the same in the real torchrun, which takes a minute.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from tests.trained import SMALL

HOME = Path(__file__).parents[2] / "fixtures/e2ad55b/home.zip"
PRELOADED = [
    "cdm_cli.jobs.training.train",
    "cdm_cli.jobs.sampling.upsample",
    "cdm_cli.jobs.sampling.sample",
]
ENOUGH = 120  # seconds after which a job hangs
TRAIN = (
    "train", "new", "--preset", "tiny-base8", "--batch-size", "8", "--device", "cpu",
    *(word for change in ("model.resolution=4", *SMALL) for word in ("--set", change)),
)  # fmt: skip
SAMPLE = "sample base --num 20 -o new.h5 --device cpu --batch-size 8".split()
UPSAMPLE = "upsample --s 5 --num 24 -o new.h5 --device cpu --batch-size 8".split()


class Ended(NamedTuple):
    """How the process of a host ended, and what it said on stdout and stderr."""

    code: int
    said: str


def workspace(directory: Path) -> Path:
    """Lay out stages, data and low-resolution samples of 4 and 8 pixels."""
    with zipfile.ZipFile(HOME) as file:
        file.extractall(directory)
    return directory


def on_two_hosts(
    first: Path,
    second: Path,
    words: Sequence[str],
    others: Sequence[str] | None = None,
    *,
    changed: Mapping[str, object] | None = None,
) -> tuple[Ended, Ended]:
    """Run a command in two directories, which are the two processes of one job.

    others: the words of the second host, where they are not the same. changed: attributes of
    modules that are others there, as "cdm_cli.jobs.runtime.agreement.__version__".
    """
    return ended(started(first, second, words, others, changed=changed))


class Host(NamedTuple):
    """A process that stands for a host, and the file of what it says."""

    process: BaseProcess
    log: Path


def started(
    first: Path,
    second: Path,
    words: Sequence[str],
    others: Sequence[str] | None = None,
    *,
    changed: Mapping[str, object] | None = None,
) -> tuple[Host, Host]:
    """Start what `on_two_hosts` runs."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    port = free_port()
    places = ((first, words, {}), (second, others or words, dict(changed or {})))
    one, other = (
        Host(context.Process(target=_host, args=(rank, port, *place)), _log(place[0], rank))
        for rank, place in enumerate(places)
    )
    one.process.start()
    other.process.start()
    return one, other


def ended(hosts: tuple[Host, Host]) -> tuple[Ended, Ended]:
    """Wait until both have ended, and return how; the signal that killed one is a code < 0."""
    for host in hosts:
        host.process.join(ENOUGH)
        host.process.kill()
    one, other = (Ended(host.process.exitcode or 0, host.log.read_text()) for host in hosts)
    return one, other


def _log(directory: Path, rank: int) -> Path:
    return directory / f"said-{rank}.txt"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _host(
    rank: int, port: int, directory: Path, words: Sequence[str], changed: Mapping[str, object]
) -> None:
    """Be the process of one host: in its directory, with the environment that torchrun sets."""
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    os.chdir(directory)
    with _log(directory, rank).open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    for name, value in changed.items():
        module, _, attribute = name.rpartition(".")
        __import__(module)
        setattr(sys.modules[module], attribute, value)
    from cdm_cli.app import app

    app(list(words))


def torchrun(directories: Sequence[Path], words: Sequence[str]) -> list[str]:
    """Run a command under `torchrun --nnodes 2`, a node for each directory; return what is said."""
    port = str(free_port())
    base = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    base += ["--master-addr", "127.0.0.1", "--master-port", port]
    nodes = [
        subprocess.Popen(
            [*base, "--node-rank", str(rank), "-m", "cdm_cli", "--", *words],
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, directory in enumerate(directories)
    ]
    said = [node.communicate(timeout=5 * ENOUGH)[0] for node in nodes]
    return [f"exit {node.returncode}\n{text}" for node, text in zip(nodes, said, strict=True)]


def show(directories: Sequence[Path], words: Sequence[str]) -> None:
    """Run a command, and print how its nodes ended."""
    for rank, said in enumerate(torchrun(directories, words)):
        lines = [line for line in said.splitlines() if "cdm: " in line or line.startswith("exit")]
        sys.stdout.write(f"{words[0]}, host {rank}: " + "\n    ".join(lines) + "\n")


def main() -> None:
    """Train, resume where a host lacks the newest checkpoint, sample without a shared directory."""
    with tempfile.TemporaryDirectory() as folder:
        hosts = [workspace(Path(folder) / name) for name in "ab"]
        whole = [workspace(Path(folder) / name) for name in "cd"]
        show(hosts, [*TRAIN, "--steps", "4"])
        show(hosts, [*TRAIN, "--steps", "6"])
        shutil.copytree(hosts[0] / "runs/new", hosts[1] / "runs/new", dirs_exist_ok=True)
        show(hosts, [*TRAIN, "--steps", "6"])
        show(whole, [*TRAIN, "--steps", "6"])
        weights = [
            (host / "runs/new/ema.safetensors").read_bytes() for host in (hosts[0], whole[0])
        ]
        sys.stdout.write(f"stopped and whole training end alike: {weights[0] == weights[1]}\n")
        show(hosts, SAMPLE)
        show([hosts[0], hosts[0]], [*UPSAMPLE, "--gpus", "2"])


if __name__ == "__main__":
    main()
