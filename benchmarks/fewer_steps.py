"""FID against the number of network evaluations, for every sampler, on a trained stage.

    python benchmarks/fewer_steps.py base --num 5000 -o points [--points ancestral:0,ddim:50]
    python benchmarks/fewer_steps.py sr --lowres lowres.h5 --s 501 --num 5000 -o points-sr

Runs in a workspace, on every CUDA device there is, through the jobs of `cdm sample`, `cdm
upsample` and `cdm eval fid`. All points share their seed, so that samples differ by the sampler
alone. A point that exists is not sampled again: the same command continues. SAMPLER:STEPS:fp32
is the plain float32 path. ancestral:0 is all T steps; the last column compares with it, or with
the longest ancestral point there is, or else with the longest point.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import torch
from machine import machine

from cdm_cli.jobs.judging import evaluate
from cdm_cli.jobs.runtime.session import Silent
from cdm_cli.jobs.sampling import sample, upsample
from cdm_cli.names import Precision, Sampler
from cdm_cli.options.judging import EvalOptions, FeatureOptions
from cdm_cli.options.sampling import Compute, SampleOptions, Sampling, UpsampleOptions

POINTS = (
    "ancestral:1000,ancestral:500,ancestral:250,ancestral:100,ancestral:50,ancestral:25,ddim:250,"
    "ddim:100,ddim:50,ddim:25,ddim:10,dpm-solver++:100,dpm-solver++:50,dpm-solver++:25,"
    "dpm-solver++:20,dpm-solver++:15,dpm-solver++:10,sde-dpm-solver++:100,sde-dpm-solver++:50,"
    "sde-dpm-solver++:25,sde-dpm-solver++:15,sde-dpm-solver++:10"
)


def steps_of(point: str) -> int:
    """Return the evaluations of a point; 0, all T, counts as many."""
    return int(point.split(":")[1]) or 10**9


def measured(arguments: argparse.Namespace, point: str) -> dict[str, Any]:
    """Sample and judge one point; its store and its numbers stay in the output directory."""
    name, steps, *precision = point.split(":")
    out = Path(arguments.out) / f"{point.replace(':', '-')}.h5"
    sampling = Sampling(sampler=cast(Sampler, name), steps=int(steps))
    compute = Compute(
        compile=False, precision=cast(Precision, precision[0] if precision else "auto")
    )
    start = time.perf_counter()
    common: dict[str, Any] = {
        "num": arguments.num,
        "out": out,
        "sampling": sampling,
        "compute": compute,
    }
    if arguments.lowres:
        sr: dict[str, Any] = {
            "lowres": Path(arguments.lowres),
            "model": arguments.stage,
            "s": arguments.s,
        }
        upsample.run(UpsampleOptions(**sr, **common), Silent())
    else:
        keep_s = tuple(int(s) for s in arguments.keep_s.split(",") if s)
        sample.run(SampleOptions(stage=arguments.stage, keep_s=keep_s, **common), Silent())
    seconds = time.perf_counter() - start
    judge = FeatureOptions(features=arguments.features)
    found = evaluate.run(
        EvalOptions(metrics=("fid", "accuracy"), stores=(out,), judge=judge), Silent()
    ).table
    row = next(row for row in found.rows if row.metric == "fid" and row.reference == "train")
    return {
        "point": point, "seconds": seconds, "fid": row.value, "error": row.uncertainty,
        "val": found.value("fid", "val"), "accuracy": found.value("accuracy"),
    }  # fmt: skip


def work(arguments: argparse.Namespace) -> None:
    """Measure this process's share of the points, the longest first."""
    points = sorted(arguments.points.split(","), key=steps_of, reverse=True)
    which, among = map(int, arguments.only.split("/"))
    for point in points[which::among]:
        path = Path(arguments.out) / f"{point.replace(':', '-')}.json"
        if not path.exists():
            path.write_text(json.dumps(measured(arguments, point)))
            print(path.read_text(), flush=True)


def shown(arguments: argparse.Namespace) -> None:
    """Print the table."""
    rows = [json.loads(path.read_text()) for path in Path(arguments.out).glob("*.json")]
    rows.sort(key=lambda row: (row["point"].split(":")[0], -steps_of(row["point"])))
    ancestral = [row for row in rows if "ancestral" in row["point"]]
    base = max(ancestral or rows, key=lambda row: steps_of(row["point"]))
    print(f"{machine()}; {arguments.num} samples, judged by {arguments.features}")
    print("| sampler:steps | FID train | ± | FID val | accuracy | FID / longest | s |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print("| {point} | {fid:.4f} | {error:.3f} | {val:.4f} | {accuracy:.3f} ".format(**row)
              + f"| {row['fid'] / base['fid']:.3f} | {row['seconds']:.0f} |")  # fmt: skip


def main() -> None:
    """Measure every point, one process on each device, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage")
    parser.add_argument("--lowres", help="a store: then the stage is a super-resolution stage")
    parser.add_argument("--s", type=int)
    parser.add_argument("--keep-s", default="", help="times of a base stage that are kept")
    parser.add_argument("--num", type=int, default=5000)
    parser.add_argument("--points", default=POINTS)
    parser.add_argument("--features", default="features")
    parser.add_argument("-o", "--out", default="points")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    Path(arguments.out).mkdir(exist_ok=True)
    if arguments.only:
        return work(arguments)
    every = ",".join(map(str, range(torch.cuda.device_count())))
    devices = (os.environ.get("CUDA_VISIBLE_DEVICES") or every).strip(",").split(",")
    processes = [
        subprocess.Popen(
            [sys.executable, *sys.argv, "--only", f"{i}/{len(devices)}"],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": device},
        )
        for i, device in enumerate(devices)
    ]
    codes = [process.wait() for process in processes]
    shown(arguments)
    sys.exit(any(codes))


if __name__ == "__main__":
    main()
