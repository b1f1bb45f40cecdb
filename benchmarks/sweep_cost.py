"""Run a sweep, and print what each part of it took.

    python benchmarks/sweep_cost.py sweep-s --s 0,251,501 --num 2000 --features features -o new

What follows the name of the program is a command line of cdm, `sweep-s` or `sweep`, in a directory
where it has not run yet. Printed in seconds of the clock, in the order in which they come:

- imports: python, torch and the job;
- headers: the plan, from flags and the headers of files;
- loading: the judge, the statistics of the real images, and at the same time the stage and, on a
  GPU, a trial of its batch; what each of these took is told below it, and may overlap;
- first batch: kernels are compiled or loaded, a graph is recorded;
- evaluations: all other batches, from their inputs to samples in memory;
- between batches: what sampling waited for besides: inputs, writing, numbers that are kept;
- last points: what was left to judge when all was sampled; of a race its page, too;
- tables: JSON, CSV, the plot and the page.

A race is a sweep like any other: `--race`. Its batches are those of all rounds; what it waits for
at the end of a round, its judge for the most part, is between batches, and told alone as well.

Beside these: what the threads did meanwhile, which costs no time as long as it is less than the
evaluations: reading inputs (with making stores, which are also told alone), writing, judging, of
which the features and the distances are told alone.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

BEGUN = time.monotonic()
LOADED = ("judge", "references", "stage", "trial")
WRITTEN = ("numbers", "plot", "page")
MEANWHILE = (
    "reading", "making stores", "writing", "judging", "  features", "  distances", "race.json",
    "waiting for numbers",
)  # fmt: skip


class Clock:
    """What each part took, by name: seconds and calls; when the first began and the last ended."""

    def __init__(self) -> None:
        self.each: dict[str, list[float]] = defaultdict(list)
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = defaultdict(lambda: BEGUN)

    def watch(self, holder: Any, function: Callable[..., Any], part: str) -> None:
        """Measure every call of a function of a module or class."""
        name = function.__name__

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.monotonic()
            self.first.setdefault(part, start)
            try:
                return function(*args, **kwargs)
            finally:
                self.last[part] = time.monotonic()
                self.each[part].append(self.last[part] - start)

        setattr(holder, name, timed)


class Next:
    """The batches of a sweep, one at a time."""

    def __init__(self, found: Iterator[Any]) -> None:
        self._found = found

    def next(self) -> Any:
        """Return the next one, None at the end."""
        return next(self._found, None)


def told(clock: Clock, rows: list[int], sizes: list[int], steps: list[int], end: float) -> None:
    """Print the parts."""
    batches = clock.each["batch"]
    if not batches:
        print("nothing was sampled: everything was there")
        return
    evaluations = sum(num * each for num, each in zip(rows, steps, strict=True))
    warm = sum(num * each for num, each in zip(rows[1:], steps[1:], strict=True))
    sampling = sum(batches[1:])
    loop = clock.last["batch"] - clock.first["batch"]
    began = min(clock.first.get(part, clock.first["batch"]) for part in ("judge", "stage"))
    lines = [
        ("imports", clock.first["headers"] - BEGUN),
        ("headers", began - clock.first["headers"]),
        ("loading", clock.first["batch"] - began),
        *((f"  {part}", sum(clock.each[part])) for part in LOADED),
        ("first batch", batches[0]),
        ("evaluations", sampling),
        ("between batches", loop - sum(batches)),
        ("last points", clock.last["fill"] - clock.last["batch"]),
        ("tables", end - clock.last["fill"]),
        *((f"  {part}", sum(clock.each[part])) for part in WRITTEN),
        ("in all", end - BEGUN),
    ]
    for name, seconds in lines:
        print(f"{name:19} {seconds:8.2f} s")
    print("meanwhile:")
    for part in MEANWHILE:
        took = clock.each[part.strip()]
        print(f"{part:19} {sum(took):8.2f} s in {len(took)} calls")
    print(
        f"{evaluations} evaluations of {sum(rows)} images in {len(rows)} batches of {max(sizes)}, "
        f"{sum(rows) / sum(sizes):.1%} full; "
        f"{warm / max(sampling, 1e-9):.0f} evaluations/s in all but the first, "
        f"{evaluations / (end - BEGUN):.0f}/s in all"
    )


def main() -> None:
    """Watch a sweep, and tell."""
    from cdm_cli.app import app
    from cdm_cli.jobs.judging import panel
    from cdm_cli.jobs.sampling import ready, shared_batches
    from cdm_cli.jobs.sampling.fill import Engine
    from cdm_cli.jobs.sweep import course, making, race, race_judge, sweep
    from cdm_cli.jobs.sweep.judges import Bench, PointJudge
    from cdm_cli.jobs.sweep.race_judge import RaceJudge
    from cdm_cli.metrics.collector import Collector

    clock, batch = Clock(), Engine.make_batch
    rows, sizes, steps = list[int](), list[int](), list[int]()

    @wraps(batch)
    def counted(self: Engine, samples: Any, meter: Any) -> Any:
        rows.append(len(samples.ids))
        sizes.append(self.batch_size)
        steps.append(self.chain.evaluations)
        return batch(self, samples, meter)

    clock.watch(Engine, counted, "batch")
    clock.watch(sweep, sweep.plan_work, "headers")
    clock.watch(panel, panel.open_judge, "judge")
    clock.watch(panel, panel.find_references, "references")
    clock.watch(ready, ready.load_fast_stage, "stage")
    clock.watch(ready, ready.halve_until_fits, "trial")
    clock.watch(panel, panel.collect, "features")
    clock.watch(panel, panel.make_table, "distances")
    clock.watch(sweep, sweep.write_all, "numbers")
    clock.watch(sweep, sweep.write_plot, "plot")
    clock.watch(sweep, sweep.write_report, "page")
    clock.watch(making, making.resume_or_create, "making stores")
    clock.watch(shared_batches, shared_batches._write, "writing")  # pyright: ignore
    read = making.cut_batches

    def batches(*args: Any) -> Iterator[Any]:
        found = Next(read(*args))
        clock.watch(found, found.next, "reading")
        while (one := found.next()) is not None:
            yield one

    making.cut_batches = batches
    clock.watch(PointJudge, PointJudge.__call__, "judging")
    clock.watch(RaceJudge, RaceJudge.estimate, "judging")
    clock.watch(race_judge, race_judge.collect, "features")
    clock.watch(Collector, Collector.frechet, "distances")
    clock.watch(Bench, Bench.settle, "waiting for numbers")
    clock.watch(course, course.write_race, "race.json")
    clock.watch(race, race.write_report, "page")
    clock.watch(sweep, sweep.fill_points, "fill")
    clock.watch(sweep, sweep.run_race, "fill")
    try:
        app(sys.argv[1:])
    except SystemExit as ended:
        if ended.code:
            raise
    told(clock, rows, sizes, steps, time.monotonic())


if __name__ == "__main__":
    main()
