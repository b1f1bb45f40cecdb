"""What `startup.py` runs in the process of a command: the command itself, watched from within.

    python benchmarks/startup_watched.py OUT.json WORD...

A part is without the parts inside it. What is imported is imported as the command would.
"""

import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

ASIDE = ("ThreadPool", "first weights", "ahead")  # names of threads that work beside the command


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
        if threading.current_thread().name.startswith(ASIDE):
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
    from cdm_cli.nets.kernels import ahead

    ahead.begin()
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
        clock.watch(rehearsal.ahead, "finish", "CUDA and Triton prepared: waited for")
        clock.watch(rehearsal.Rehearsal, "__exit__", "our Triton kernels: waited for")


def _watch_job(clock: Clock, told: dict[str, Any], start: float, *, training: bool) -> None:
    import torch

    from cdm_cli.cascade import checkpoint
    from cdm_cli.jobs.sampling import fill, ready
    from cdm_cli.jobs.training import first_weights, gradients, step, train
    from cdm_cli.nets.kernels import recorded

    cuda = torch.cuda.is_available()
    if cuda:
        clock.run("CUDA context", lambda: torch.zeros(1, device="cuda").item())
    clock.watch(checkpoint, "read_weights", "weights: read and hashed")
    clock.watch(checkpoint, "build_empty_net", "network built")
    clock.watch(train, "begin_net", "network built")
    clock.watch(first_weights.FirstWeights, "fill", "first weights: waited for")
    clock.watch(train, "Trainer", "average and optimizer made")
    clock.watch(checkpoint.Stage, "to", "weights: to the device")
    clock.watch(ready, "make_fast", "weights: to the device")
    clock.watch(train, "plan_work", "data and plan")
    clock.watch(train, "resume", "state of the training")
    clock.watch(recorded, "Recording", "graph recorded")
    clock.watch(gradients.Gradients, "warm_up", "few rows rehearsed: the rest")
    clock.watch(step.Trainer, "_update", "optimizer and average: a step")
    halve = getattr(gradients.Gradients, name := "_halve")

    def halved(self: Any) -> None:
        told.setdefault("halved", []).append(time.monotonic() - start)
        halve(self)

    setattr(gradients.Gradients, name, halved)
    _watch_batches(clock)
    watched = Ready(clock, told, start, torch.cuda.synchronize if cuda else lambda: None)
    if cuda:
        watched.watch(recorded.Recorded, "__call__", call=True, ends=not training)
    if training:
        watched.watch(step.Trainer, "step", call=not cuda, ends=True)
    elif not cuda:
        watched.watch(fill.Engine, "make_batch", call=True, ends=True)
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
        self.trainer.count_streak()
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


if __name__ == "__main__":
    inside(sys.argv[2:], Path(sys.argv[1]))
