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
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

CASES = {
    "train-base16": "train base16 --preset cifar-base16 --steps 2",
    "sample": "sample base16 --num 256 --steps 4 -o low.h5",
    "train-sr": "train sr --preset cifar-sr16-32 --steps 2",
    "upsample": "upsample data.h5 --split val --num 256 --model sr --s 251 --steps 4 -o up.h5",
    "train-imagenet": "train base32 --preset imagenet-base32 --steps 2",
}
QUIET = "--set training.grid_every=0"
CACHES = {
    "TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor", "CUDA_CACHE_PATH": "cuda",
    "XDG_CACHE_HOME": "cache", "MPLCONFIGDIR": "matplotlib",
}  # fmt: skip
CALLS = 4  # of a network that are told one by one: the first, the recorded one, two replays


class Clock:
    """Seconds and calls of each part, each without the parts that began within it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._open: list[tuple[str, list[float]]] = []

    def add(self, part: str, seconds: float) -> None:
        """Count what was measured elsewhere."""
        self.seconds[part] += seconds
        self.calls[part] += 1
        if self._open:
            self._open[-1][1][0] += seconds

    def run(self, part: str, function: Callable[..., Any], *args: Any, **words: Any) -> Any:
        """Call a function as a part; what other threads do costs no time, and is not told."""
        if threading.current_thread().name.startswith("ThreadPool"):
            return function(*args, **words)
        inside = [0.0]
        self._open.append((part, inside))
        start = time.monotonic()
        try:
            return function(*args, **words)
        finally:
            took = time.monotonic() - start
            self._open.pop()
            self.seconds[part] += took - inside[0]
            self.calls[part] += 1
            if self._open:
                self._open[-1][1][0] += took

    def watch(self, holder: Any, name: str, part: str) -> None:
        """Let every call of a function of a module or class be a part, if it is there."""
        function = getattr(holder, name, None)
        if function is not None:

            def watched(*args: Any, **words: Any) -> Any:
                return self.run(part, function, *args, **words)

            setattr(holder, name, watched)


def begun() -> float:
    """Return when this process was started, as time.monotonic() counts."""
    with open("/proc/self/stat") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])
    now = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - now


class Told(BaseException):
    """Ends a command whose start is all that is measured."""


def inside(words: list[str], out: Path) -> None:
    """Run a command, watched, up to the end of its last call that is told; write what was seen."""
    start, clock = begun(), Clock()
    clock.add("python", time.monotonic() - start)
    clock.run("import torch", __import__, "torch")
    told: dict[str, Any] = {"calls": [], "ready": None}
    _watch_libraries(clock)
    clock.run("import cdm's jobs", _import_jobs, words[0])
    _watch_job(clock, told, start, training=words[0] == "train")
    sys.argv = ["cdm", *words]
    from cdm_cli.app import main

    try:
        main()
    except SystemExit as leaving:
        told["code"] = leaving.code
    except Told:
        told["code"] = 0
    heavy = (
        "torch._dynamo",
        "torch._inductor",
        "sympy",
        "torchvision",
        "scipy",
        "matplotlib",
        "rich",
    )
    told["modules"] = [name for name in heavy if name in sys.modules]
    told["seconds"], told["whole"] = dict(clock.seconds), time.monotonic() - start
    out.write_text(json.dumps(told))
    sys.stdout.flush()
    os._exit(0)


def _import_jobs(command: str) -> None:
    __import__("cdm_cli.app")
    __import__(f"cdm_cli.jobs.{'training' if command == 'train' else 'sampling'}.{command}")


def _watch_libraries(clock: Clock) -> None:
    import torch

    clock.watch(torch.cuda, "_lazy_init", "CUDA context")
    clock.watch(torch.cuda, "is_available", "CUDA context")
    with suppress(ImportError):
        jit = clock.run("import triton", __import__, "triton.runtime.jit", fromlist=["jit"])
        compiler = __import__("triton.compiler.compiler", fromlist=["compiler"])
        clock.watch(jit.JITFunction, "_do_compile", "our Triton kernels: compiled or found")
        clock.watch(compiler.CompiledKernel, "_init_handles", "our Triton kernels: loaded")
    with suppress(ImportError):
        rehearsal = __import__("cdm_cli.nets.kernels.rehearsal", fromlist=["rehearsal"])
        clock.watch(rehearsal.Rehearsal, "__exit__", "our Triton kernels: waited for")


def _watch_job(clock: Clock, told: dict[str, Any], start: float, *, training: bool) -> None:
    import torch

    from cdm_cli.cascade import checkpoint
    from cdm_cli.jobs.sampling import fill, numerics
    from cdm_cli.jobs.training import gradients, step, train
    from cdm_cli.nets.kernels import recorded

    cuda = torch.cuda.is_available()
    if cuda:
        clock.run("CUDA context", lambda: torch.zeros(1, device="cuda").item())
    clock.watch(checkpoint, "read_weights", "weights: read and hashed")
    clock.watch(checkpoint, "empty_net", "network built")
    clock.watch(train, "build_objective", "network built")
    clock.watch(train, "Trainer", "average and optimizer made")
    clock.watch(checkpoint.Stage, "to", "weights: to the device")
    clock.watch(numerics, "for_sampling", "weights: to the device")
    clock.watch(train, "_begin", "data and plan")
    clock.watch(train, "resume", "state of the training")
    clock.watch(recorded, "Recording", "graph recorded")
    clock.watch(step.Trainer, "_update", "optimizer and average: a step")
    halve = getattr(gradients.Gradients, name := "_halve")

    def halved(self: Any) -> None:
        told.setdefault("halved", []).append(time.monotonic() - start)
        halve(self)

    setattr(gradients.Gradients, name, halved)
    _watch_batches(clock)
    ready = Ready(clock, told, start, torch.cuda.synchronize if cuda else lambda: None)
    if cuda:
        ready.watch(recorded.Recorded, "__call__", call=True, ends=not training)
    if training:
        ready.watch(step.Trainer, "step", call=not cuda, ends=True)
    elif not cuda:
        ready.watch(fill.Engine, "batch", call=True, ends=True)
    _stop_before_saving(told, start)


def _watch_batches(clock: Clock) -> None:
    from cdm_cli.data.batches import TrainBatches

    batches = TrainBatches.iterate

    def iterate(*args: Any) -> Any:
        found = batches(*args)
        while (one := clock.run("batch read", next, found, None)) is not None:
            yield one

    TrainBatches.iterate = iterate  # pyright: ignore[reportAttributeAccessIssue]


def _stop_before_saving(told: dict[str, Any], start: float) -> None:
    from cdm_cli.jobs.training.loop import Loop

    save = getattr(Loop, name := "_save")

    def saved(self: Any, step: int, **words: Any) -> bool:
        self.trainer.streak()
        told["second step"] = time.monotonic() - start
        if "base32" in str(self.directory):
            raise Told  # its checkpoint takes longer than all that is measured
        return save(self, step, **words)

    setattr(Loop, name, saved)


class Ready:
    """Tells calls of the network one by one, and what each part took up to the first that ends."""

    def __init__(
        self, clock: Clock, told: dict[str, Any], start: float, wait: Callable[[], object]
    ) -> None:
        self.clock, self.told, self.start, self.wait = clock, told, start, wait

    def watch(self, holder: Any, name: str, *, call: bool, ends: bool) -> None:
        """Watch a function. call: it is a call of the network. ends: what is waited for is done."""
        function = getattr(holder, name)

        def watched(*args: Any, **words: Any) -> Any:
            if call:
                result = self._call(function, *args, **words)
            else:
                result = self.clock.run("a step: the rest", function, *args, **words)
            if ends and self.told["ready"] is None:
                self.wait()
                self.told["ready"] = time.monotonic() - self.start
                self.told["at ready"] = dict(self.clock.seconds)
                self.told["calls at ready"] = dict(self.clock.calls)
            return result

        setattr(holder, name, watched)

    def _call(self, function: Callable[..., Any], *args: Any, **words: Any) -> Any:
        count, at = len(self.told["calls"]), time.monotonic()
        part = ("first call of the network: the rest", "second call: the rest", "later calls")
        with nullcontext() if count else _first_of_shapes(self.clock, self.wait):
            result = self.clock.run(part[min(count, 2)], function, *args, **words)
            self.clock.run(part[min(count, 2)], self.wait)
        self.told["calls"].append(time.monotonic() - at)
        return result


def _first_of_shapes(clock: Clock, wait: Callable[[], object]) -> Any:
    """Return a mode in which the first call of an operator and shape is waited for: a part."""
    from torch.utils._python_dispatch import TorchDispatchMode

    parts = {"convolution": "cuDNN", "mm": "cuBLAS", "addmm": "cuBLAS", "bmm": "cuBLAS"}
    met = set[object]()

    class First(TorchDispatchMode):
        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False  # it would be loaded for that

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            name = func._schema.name.split("::")[1]
            part = parts.get(name, "cuDNN" if "convolution" in name else None)
            if "attention" in name:
                part = "attention"
            shapes = (name, str([getattr(x, "shape", x) for x in args]))
            if part is None or shapes in met:
                return func(*args, **kwargs or {})
            met.add(shapes)
            wait()
            label = f"first calls of {part}, {'gradients' if 'backward' in name else 'forward'}"
            result = clock.run(label, func, *args, **kwargs or {})
            clock.run(label, wait)
            return result

    return First()


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
    command = [sys.executable, str(Path(__file__).resolve()), "--inside", str(out), "--", *words]
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
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        return inside(arguments.words, arguments.inside)
    print(machine(), flush=True)
    end = time.monotonic() + arguments.seconds
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        prepare(place)
        for case in arguments.only.split(","):
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
