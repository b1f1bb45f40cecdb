"""The commands that are run on one GPU and on two, and must not differ."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cdm_cli.jobs.judging import evaluate
from cdm_cli.jobs.sampling import sample, upsample
from cdm_cli.jobs.sweep import sweep as sweep_s
from cdm_cli.options.judging import EvalOptions, FeatureOptions
from cdm_cli.options.sampling import Compute, SampleOptions, UpsampleOptions
from cdm_cli.options.sweeping import SweepSOptions
from tests.asking import as_typed
from tests.cuda.rig import Run, address

NUM, S = 640, 251  # ten blocks
JUDGE = as_typed(FeatureOptions, features="features")
BATCH = Compute(batch_size=64)  # by default a sweep of one GPU has a larger one than that of two


def drawing(out: str, **changes: Any) -> SampleOptions:
    """Return how samples are drawn."""
    return as_typed(SampleOptions, num=NUM, keep_s=(S,), out=Path(out), **changes)


def drawing_words(out: str) -> tuple[str, ...]:
    """Return the same as a user types it."""
    return ("sample", "--num", str(NUM), "--keep-s", str(S), "-o", out, "--gpus", "2")


def enlarging(tag: str) -> UpsampleOptions:
    """Return how the samples of a tag are enlarged."""
    return as_typed(UpsampleOptions, 
        lowres=Path(f"{tag}-lowres.h5"), model="sr", s=S, augment="truncated",
        out=Path(f"{tag}-samples.h5"),
    )  # fmt: skip


def options_of(tag: str) -> list[tuple[Any, Any]]:
    """Return the commands of a cascade, whose files begin with a tag: modules and options."""
    lowres, samples = Path(f"{tag}-lowres.h5"), Path(f"{tag}-samples.h5")
    sweep = Path(f"{tag}-sweep")
    judge = replace(JUDGE, compute=BATCH)
    sweeping = as_typed(
        SweepSOptions, lowres=lowres, model="sr", s=(0, S), num=128, out=sweep, judge=judge
    )
    judging = as_typed(
        EvalOptions, metrics=("fid",), stores=(samples,), judge=JUDGE, out=Path(f"{tag}.json")
    )
    return [
        (sample, drawing(str(lowres))),
        (upsample, enlarging(tag)),
        (sweep_s, sweeping),
        (evaluate, judging),
    ]


def cascade(tag: str) -> list[tuple[Callable[..., Any], Any]]:
    """Return the commands for one process."""
    return [(module.run, options) for module, options in options_of(tag)]


def cascade_together(tag: str) -> list[tuple[Run, Any, str]]:
    """Return the commands for several processes, each with a place to meet."""
    return [(module.run_in, options, address()) for module, options in options_of(tag)]
