"""Where the time goes until the first evaluation or step of a command, with empty caches and full.

    python benchmarks/startup.py
    python benchmarks/startup.py --only sample,train-imagenet --seconds 150

Each case is a command in a process of its own, which is watched from within: what a part took is
without the parts inside it, and what is left over is told as such. "first" runs with empty caches
of Triton, torch's compiler, CUDA and cdm, "again" with what that left; files that the system has
read before are in its memory in both. A first call of a convolution or product of some shape is
waited for, so that cuDNN's and cuBLAS's choice and loading of kernels stand apart. Everything is
made in a temporary directory; a case for which the time does not suffice is left out and named.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
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


def environment(place: Path) -> dict[str, str]:
    """Return the environment with every cache below a directory."""
    ours = {name: str(place / folder) for name, folder in CACHES.items()}
    path = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, **ours, "PYTHONPATH": os.pathsep.join(path)}


def prepare(place: Path) -> None:
    """Draw a small store of both resolutions."""
    drawn = "from cdm_cli.jobs.demo.drawing import write_images as w; from pathlib import Path; "
    drawn += "w(Path('train.zip'), per_class=100, resolution=32, seed=0); "
    drawn += "w(Path('val.zip'), per_class=100, resolution=32, seed=1)"
    words = "prepare train.zip --val val.zip -o data.h5 --resolution 16 --resolution 32"
    for command in (["-c", drawn], ["-m", "cdm_cli", "-q", *words.split()]):
        subprocess.run(
            [sys.executable, *command], cwd=place, env=environment(place), check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip


def measure(case: str, place: Path, seconds: float, extra: list[str]) -> dict[str, Any] | None:
    """Run a case; return what it saw, None if it failed or took too long."""
    words, out = [*CASES[case].split(), *extra], place / "told.json"
    words += [*QUIET.split()] if words[0] == "train" else []
    for name in ("low.h5", "up.h5", "told.json"):
        (place / name).unlink(missing_ok=True)
    if words[0] == "train":
        words[1] += "-" + str(time.monotonic_ns())
    command = [sys.executable, str(WATCHED), str(out), *words]
    try:
        ended = subprocess.run(
            command, cwd=place, env=environment(place), timeout=max(1.0, seconds),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        print(f"{case}: did not end in {seconds:.0f} s", flush=True)
        return None
    if words[0] == "train":
        with suppress(OSError):
            (place / "runs" / words[1]).rename(place / "runs" / CASES[case].split()[1])
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
    parts = sorted(
        {part for told in rows.values() for part in told.get("at ready", {})},
        key=lambda part: -max(told.get("at ready", {}).get(part, 0.0) for told in rows.values()),
    )
    print("| seconds until the first batch or step | " + " | ".join(names) + " |")
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


def main() -> None:
    """Run the cases, each with empty caches and again, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(CASES), help="cases, by commas")
    parser.add_argument("--seconds", type=float, default=150.0, help="in all")
    parser.add_argument("--json", type=Path, help="where all numbers go")
    parser.add_argument("--extra", default="", help="more words of every command")
    arguments = parser.parse_args()
    print(machine(), flush=True)
    end = time.monotonic() + arguments.seconds
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        prepare(place)
        for case in arguments.only.split(","):
            need = NEEDS.get(case)
            if need and not (place / "runs" / CASES[need].split()[1]).exists():
                measure(need, place, arguments.seconds, arguments.extra.split())
            for name in CACHES:
                with suppress(OSError):
                    (place / CACHES[name]).rename(place / f"{CACHES[name]}-before-{case}")
            for turn in ("first", "again"):
                left = end - time.monotonic()
                if left < 3:
                    print(f"{case} {turn}: no time left", flush=True)
                    continue
                if told := measure(case, place, left, arguments.extra.split()):
                    rows[f"{case} {turn}"] = told
                    print(f"{case} {turn}: ready after {told['ready']}", flush=True)
                    if arguments.json:
                        arguments.json.write_text(json.dumps(rows))
    show(rows)


if __name__ == "__main__":
    main()
