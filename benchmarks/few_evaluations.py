"""Tuned schedules of few evaluations beside many ancestral steps, by paired FID of many images.

    python benchmarks/few_evaluations.py sr --lowres lowres.h5 --s 1001 --schedule sr.json
    python benchmarks/few_evaluations.py base --schedule base.json
    python benchmarks/few_evaluations.py base --plain 8,25 --samplers ddim,ancestral

Runs in a workspace, through the jobs of `cdm sample`, `cdm upsample` and `cdm eval fid`. All points
share ids and noise, of a seed that no search has seen. For every number of steps of the file: the
tuned schedule, and plain samplers at evenly spread times; the reference is ancestral sampling.
The last column is the upper end of the paired 95 % interval of the difference (Student, nine
degrees of freedom), as a share of the reference's FID less its bias. --samplers: those beside the
tuned schedule; without --schedule these alone, in --plain steps. --only reference,tuned-8: sample
these and judge nothing; so several GPUs share the points, and the same line without it makes the
table.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from machine import machine

from cdm_cli.jobs.judging import evaluate
from cdm_cli.jobs.runtime.session import Silent
from cdm_cli.jobs.sampling import sample, upsample
from cdm_cli.metrics.comparisons import tell_apart
from cdm_cli.metrics.table import MetricRow
from cdm_cli.options.judging import EvalOptions, FeatureOptions
from cdm_cli.options.sampling import Compute, SampleOptions, Sampling, UpsampleOptions

STUDENT = 2.262  # of nine degrees of freedom, two-sided 95 %


def drawn(arguments: argparse.Namespace, name: str, sampling: Sampling) -> tuple[Path, float]:
    """Sample one point, unless it is there; returns its store and the seconds it took."""
    out = Path(arguments.out) / f"{name}.h5"
    start = time.perf_counter()
    compute = Compute(compile=False, device=arguments.device, batch_size=arguments.batch_size)
    common: dict[str, Any] = {
        "num": arguments.num, "out": out, "sampling": sampling, "compute": compute
    }  # fmt: skip
    if arguments.lowres:
        sr = {"lowres": Path(arguments.lowres), "model": arguments.stage, "s": arguments.s}
        upsample.run(UpsampleOptions(**sr, **common), Silent())
    else:
        sample.run(SampleOptions(stage=arguments.stage, **common), Silent())
    return out, time.perf_counter() - start


def judged(arguments: argparse.Namespace, store: Path) -> MetricRow:
    """Return FID against train, as `cdm eval fid` has it."""
    compute = Compute(device=arguments.device, batch_size=arguments.batch_size)
    judge = FeatureOptions(features=arguments.features, ref=Path(arguments.ref), compute=compute)
    table = evaluate.run(
        EvalOptions(metrics=("fid",), stores=(store,), judge=judge), Silent()
    ).table
    return table.row("fid", "train")


def row_of(name: str, seconds: float, one: MetricRow, many: MetricRow) -> dict[str, Any]:
    """Return a line of the table, compared as `cdm eval fid --against` compares."""
    assert one.groups == many.groups
    told = {"name": name, "seconds": seconds, "fid": one.value, "error": one.uncertainty}
    if one is many:
        return {**told, "corrected": one.estimate.corrected}
    gap = one.estimate.minus(many.estimate)
    verdict = tell_apart(one.estimate, many.estimate)
    return {**told, "gap": gap.corrected, "gap_error": gap.error, "verdict": verdict}


def points_of(arguments: argparse.Namespace) -> dict[str, Sampling]:
    """Return how each point is sampled: the reference, the tuned schedules, the plain samplers."""
    seed, tuned = arguments.seed, arguments.schedule
    points = {"reference": Sampling(sampler="ancestral", steps=arguments.reference, seed=seed)}
    there = [one["steps"] for one in json.loads(tuned.read_text())["schedules"]] if tuned else []
    plain = [int(n) for n in arguments.plain.split(",") if n] or there
    points |= {f"tuned-{n}": Sampling(schedule=tuned, steps=n, seed=seed) for n in there}
    for sampler in filter(None, arguments.samplers.split(",")):
        points |= {f"{sampler}-{n}": Sampling(sampler=sampler, steps=n, seed=seed) for n in plain}
    return points


def main() -> None:
    """Sample and judge every point, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage")
    parser.add_argument("--lowres")
    parser.add_argument("--s", type=int)
    parser.add_argument("--schedule", type=Path, help="of cdm tune-schedule")
    parser.add_argument("--num", type=int, default=10_000)
    parser.add_argument("--reference", type=int, default=250)
    parser.add_argument("--plain", default="", help="steps of the plain samplers [all of the file]")
    parser.add_argument("--samplers", default="sde-dpm-solver++", help="plain ones, by commas")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ref", default="data.h5")
    parser.add_argument("--features", default="features")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--only", default="", help="points to sample and not to judge, by commas")
    parser.add_argument("-o", "--out", default="few")
    arguments = parser.parse_args()
    Path(arguments.out).mkdir(exist_ok=True)
    points = points_of(arguments)
    if arguments.only:
        for name in arguments.only.split(","):
            print(name, drawn(arguments, name, points[name])[1], flush=True)
        return
    many, seconds = drawn(arguments, "reference", points.pop("reference"))
    far = judged(arguments, many)
    rows = [row_of("reference", seconds, far, far)]
    for name, sampling in points.items():
        store, seconds = drawn(arguments, name, sampling)
        rows.append(row_of(name, seconds, judged(arguments, store), far))
        print(name, rows[-1]["fid"], flush=True)
    told = {"machine": machine(), **vars(arguments), "rows": rows}
    Path(arguments.out, "few.json").write_text(json.dumps(told, default=str))
    shown(told)


def shown(told: dict[str, Any]) -> None:
    """Print the table."""
    print(f"{told['machine']}; {told['num']} samples, judged by {told['features']}")
    print("| point | FID train | ± | above the reference | ± | at most, 95 % | s |")
    print("|---|---|---|---|---|---|---|")
    least = told["rows"][0]["corrected"]
    for row in told["rows"]:
        gap, error = row.get("gap"), row.get("gap_error")
        most = "" if gap is None else f"{100 * (gap + STUDENT * error) / least:.1f} %"
        print(
            f"| {row['name']} | {row['fid']:.4f} | {row['error']:.4f} | "
            + ("| | " if gap is None else f"{gap:+.4f} | {error:.4f} | ")
            + f"{most} | {row['seconds']:.0f} |"
        )


if __name__ == "__main__":
    main()
