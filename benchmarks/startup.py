"""How soon the first evaluation or step of a command is there, with empty caches and full.

    python benchmarks/startup.py
    python benchmarks/startup.py --only sample,train-imagenet --seconds 150

Each case is a command in a process of its own. What it takes is what it says itself (`-v`: "ready
after"), with nothing that watches it: "first" with empty caches of Triton, torch's compiler, CUDA
and cdm, "again" with what that left, twice, of which the shorter counts. A command is killed once
it has said so, unless a later case needs its stage. Files that the system has read before are in
its memory in all runs.

Then each case is run once more with full caches, watched from within: what a part took is without
the parts inside it, and what is left over is told as such. A first call of a convolution or product
of some shape is waited for, so that cuDNN's and cuBLAS's choice and loading of kernels stand apart;
so a watched run takes longer than what a user waits for, by seconds. Everything is made in a
temporary directory; what the time does not suffice for is left out and named.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import cache_from_source, find_spec
from pathlib import Path
from typing import Any

CASES = {
    "train-base16": "train base16 --preset cifar-base16 --steps 2",
    "sample": "sample base16 --num 256 --steps 4 -o low.h5",
    "train-sr": "train sr --preset cifar-sr16-32 --steps 2",
    "upsample": "upsample data.h5 --split val --num 256 --model sr --s 251 --steps 4 -o up.h5",
    "train-imagenet": "train base32 --preset imagenet-base32 --steps 2",
}
NEEDS = {"sample": "train-base16", "upsample": "train-sr"}  # which leaves the stage that it runs
QUIET = "--set training.grid_every=0"
CACHES = {
    "TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor", "CUDA_CACHE_PATH": "cuda",
    "XDG_CACHE_HOME": "cache", "MPLCONFIGDIR": "matplotlib",
}  # fmt: skip
WATCHED = Path(__file__).resolve().with_name("startup_watched.py")
CALLS = 4  # of a network that are told one by one: the first, the recorded one, two replays
READY = re.compile(r"ready after (\d+\.\d) s: (.*)")
GLANCE = 0.02
IMPORTED = "cdm_cli.app", "cdm_cli.jobs.training.train", "cdm_cli.jobs.sampling.upsample"


def environment(place: Path) -> dict[str, str]:
    """Return the environment with every cache below a directory."""
    ours = {name: str(place / folder) for name, folder in CACHES.items()}
    path = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, **ours, "PYTHONPATH": os.pathsep.join(path)}


def prepare(place: Path) -> None:
    """Draw a small store of both resolutions, and import once what every command imports."""
    drawn = "from cdm_cli.jobs.demo.drawing import write_images as w; from pathlib import Path; "
    drawn += "w(Path('train.zip'), per_class=100, resolution=32, seed=0); "
    drawn += "w(Path('val.zip'), per_class=100, resolution=32, seed=1)"
    words = "prepare train.zip --val val.zip -o data.h5 --resolution 16 --resolution 32"
    imports = f"import {', '.join(IMPORTED)}, triton.runtime.jit"
    for command in (["-c", drawn], ["-m", "cdm_cli", "-q", *words.split()], ["-c", imports]):
        subprocess.run(
            [sys.executable, *command], cwd=place, env=environment(place), check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip


def about_bytecode() -> str:
    """Return whether torch's modules lie there compiled, as an ordinary installation has them."""
    spec = find_spec("torch")
    origin = str(spec.origin) if spec else ""
    there = Path(cache_from_source(origin.replace("__init__", "functional"))).exists()
    return f"torch has {'' if there else 'no '}.pyc files" + (
        "" if there else ": each start compiles its sources"
    )


def words_of(case: str, place: Path, extra: list[str]) -> list[str]:
    """Return the command line of a case; a training has a name that no run had before."""
    words = [*CASES[case].split(), *extra]
    for name in ("low.h5", "up.h5", "told.json"):
        (place / name).unlink(missing_ok=True)
    if words[0] == "train":
        words += QUIET.split()
        words[1] += "-" + str(time.monotonic_ns())
    return words


def keep_stage(case: str, place: Path, words: list[str]) -> None:
    """Give the stage that a training has left the name that a later case knows."""
    if words[0] == "train":
        with suppress(OSError):
            (place / "runs" / words[1]).rename(place / "runs" / CASES[case].split()[1])


def run_alone(
    case: str, place: Path, seconds: float, extra: list[str], *, to_its_end: bool = False
) -> dict[str, Any] | None:
    """Run a case with nothing that watches it; return what it says of its start, None without."""
    words, said = words_of(case, place, extra), place / "said.txt"
    end = time.monotonic() + max(1.0, seconds)
    with said.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "cdm_cli", "-v", *words], cwd=place, env=environment(place),
            stdout=subprocess.DEVNULL, stderr=errors,
        )  # fmt: skip
        try:
            found = None
            while process.poll() is None and time.monotonic() < end:
                found = READY.search(said.read_text())
                if found and not to_its_end:
                    break
                time.sleep(GLANCE)
        finally:
            process.kill()
            process.wait()
    found = READY.search(said.read_text())
    if found is None:
        print(f"{case}: not ready in {seconds:.0f} s: {said.read_text()[-1500:]}", flush=True)
        return None
    keep_stage(case, place, words)
    return {"ready": float(found[1]), "parts": found[2]}


def run_watched(case: str, place: Path, seconds: float, extra: list[str]) -> dict[str, Any] | None:
    """Run a case watched from within; return what was seen, None if it failed or took too long."""
    words, out = words_of(case, place, extra), place / "told.json"
    command = [sys.executable, str(WATCHED), str(out), *words]
    try:
        ended = subprocess.run(
            command, cwd=place, env=environment(place), timeout=max(1.0, seconds),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        print(f"{case}: did not end in {seconds:.0f} s", flush=True)
        return None
    if not out.exists():
        print(f"{case}: failed: {ended.stderr[-1500:]}", flush=True)
        return None
    told: dict[str, Any] = json.loads(out.read_text())
    if told["code"]:
        print(f"{case}: exit code {told['code']}: {ended.stderr[-1500:]}", flush=True)
    return told


def show(rows: dict[str, dict[str, Any]]) -> None:
    """Print the parts up to the end of the first call of the network, a column for each run."""
    names = list(rows)
    print("\nWatched, with full caches: what is waited for here, a user does not wait for.\n")
    parts = sorted(
        {part for told in rows.values() for part in told.get("at ready", {})},
        key=lambda part: -max(told.get("at ready", {}).get(part, 0.0) for told in rows.values()),
    )
    print("| seconds until the first batch or step, watched | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for part in parts:
        cells: list[str] = []
        for told in rows.values():
            took = told.get("at ready", {}).get(part)
            cells.append(
                "" if took is None else f"{took:.2f} ({told['calls at ready'].get(part, 0)})"
            )
        print(f"| {part} | " + " | ".join(cells) + " |")

    def line(name: str, value: Callable[[dict[str, Any]], float | None]) -> None:
        found = [value(told) for told in rows.values()]
        print(f"| {name} | " + " | ".join("" if v is None else f"{v:.2f}" for v in found) + " |")

    line("**ready**", lambda told: told["ready"])
    line(
        "not in any part",
        lambda told: told["ready"] and told["ready"] - sum(told["at ready"].values()),
    )
    for count in range(CALLS):
        line(
            f"call {count + 1} of the network",
            lambda told, n=count: (told["calls"] + [None] * CALLS)[n],
        )
    line("second step done", lambda told: told.get("second step"))
    line("batch halved for the last time", lambda told: (told.get("halved") or [None])[-1])
    line("whole command", lambda told: told["whole"])
    for name, told in rows.items():
        print(f"{name}: halved at {told.get('halved', [])}; imported: {', '.join(told['modules'])}")


def machine() -> str:
    """Return where this ran; by nvidia-smi, since torch is not imported here."""
    gpu = f"CPU {platform.machine()}"
    with suppress(OSError, subprocess.CalledProcessError):
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        gpu = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split("\n")[
            0
        ]
    return f"{gpu}, {os.cpu_count()} cores, Python {platform.python_version()}"


def show_ready(rows: dict[str, dict[str, Any]]) -> None:
    """Print what each case says of itself."""
    print("\nNot watched, as the commands say it (-v).\n")
    print("| seconds until the first batch or step | ready | of that |\n|---|---|---|")
    for name, told in rows.items():
        print(f"| {name} | {told['ready']:.1f} | {told['parts']} |")


def parse() -> argparse.Namespace:
    """Return what was asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(CASES), help="cases, by commas")
    parser.add_argument("--seconds", type=float, default=150.0, help="in all")
    parser.add_argument("--json", type=Path, help="where all numbers go")
    parser.add_argument("--extra", default="", help="more words of every command")
    parser.add_argument("--no-parts", action="store_true", help="leave the watched runs out")
    return parser.parse_args()


class Measured:
    """Runs the turns of each case while there is time, and keeps what they told."""

    def __init__(self, place: Path, asked: argparse.Namespace, end: float) -> None:
        self._place, self._asked, self._end = place, asked, end
        self._extra: list[str] = asked.extra.split()
        self.alone: dict[str, dict[str, Any]] = {}
        self.watched: dict[str, dict[str, Any]] = {}

    def measure(self, case: str, needed: bool) -> None:
        """Run a case first, again twice, and watched; needed: its stage is, by a later case."""
        for name in CACHES:
            with suppress(OSError):
                (self._place / CACHES[name]).rename(self._place / f"{CACHES[name]}-before-{case}")
        for turn in ("first", "again", "again"):
            if left := self._time_for(f"{case} {turn}"):
                ends = needed and turn == "first"
                told = run_alone(case, self._place, left, self._extra, to_its_end=ends)
                self._keep(f"{case} {turn}", told)
        if not self._asked.no_parts and (left := self._time_for(f"{case} watched")):
            if told := run_watched(case, self._place, left, self._extra):
                self.watched[case] = told
        self._write()

    def make_stage(self, case: str) -> None:
        """Train the stage that a case needs, where no case has left it."""
        need = NEEDS.get(case)
        if need and not (self._place / "runs" / CASES[need].split()[1]).exists():
            left = self._end - time.monotonic()
            run_alone(need, self._place, left, self._extra, to_its_end=True)

    def _time_for(self, what: str) -> float:
        left = self._end - time.monotonic()
        if left < 3:
            print(f"{what}: no time left", flush=True)
        return left if left >= 3 else 0.0

    def _keep(self, name: str, told: dict[str, Any] | None) -> None:
        if told:
            print(f"{name}: ready after {told['ready']} s: {told['parts']}", flush=True)
            before = self.alone.get(name)
            self.alone[name] = told if before is None else min(before, told, key=_ready)

    def _write(self) -> None:
        if self._asked.json:
            rows = {"alone": self.alone, "watched": self.watched}
            self._asked.json.write_text(json.dumps(rows))


def _ready(told: dict[str, Any]) -> float:
    return told["ready"]


def main() -> None:
    """Run the cases, and print what they say of themselves, and what was seen of each."""
    asked = parse()
    end, cases = time.monotonic() + asked.seconds, asked.only.split(",")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        prepare(place)
        print(f"{machine()}; {about_bytecode()}", flush=True)
        measured = Measured(place, asked, end)
        for case in cases:
            measured.make_stage(case)
            measured.measure(case, any(NEEDS.get(other) == case for other in cases))
    show_ready(measured.alone)
    if measured.watched:
        show(measured.watched)


if __name__ == "__main__":
    main()
