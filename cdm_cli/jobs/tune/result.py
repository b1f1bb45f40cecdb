"""What a search leaves: `schedule.json`, a table, a curve, and what a stage keeps of it."""

import csv
import io
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from cdm_cli.__version__ import __version__
from cdm_cli.cascade.stagefile import write_settings
from cdm_cli.data.disk import make_directory
from cdm_cli.data.durable import write_file_atomically
from cdm_cli.jobs.pictures.figure import encode_figure, make_figure
from cdm_cli.jobs.runtime.same_stage import compute_config_digest
from cdm_cli.jobs.sampling.headers import Header
from cdm_cli.jobs.sampling.schedule_file import Compared, ScheduleFile, Searched, place_schedule
from cdm_cli.jobs.tune.gain import compare_judged, measure_gain
from cdm_cli.jobs.tune.log import Log, find_best_trial
from cdm_cli.jobs.tune.plan import Search
from cdm_cli.jobs.tune.trials import read_schedule
from cdm_cli.jobs.tune.ways import Way

COLUMNS = ("steps", *Compared.model_fields)
SHOWN = {  # colour and words of each kind of schedule
    "uniform": ("tab:gray", "the stage's own"), "elbo": ("tab:orange", "lowest bound"),
    "linear": ("tab:green", "best linear"), "tuned": ("tab:blue", "found"),
}  # fmt: skip


def write_schedules(out: Path, search: Search, log: Log) -> ScheduleFile:
    """Write the schedules that are known so far, and of a free search the table and the curve."""
    file = make_file(search, log)
    write_settings(out, file)
    if search.method == "free" and any(one.compared for one in file.schedules):
        write_file_atomically(out.with_suffix(".csv"), _make_table(file).encode())
        write_file_atomically(out.with_suffix(".png"), _draw_curve(file))
    return file


def apply_kept(header: Header, file: ScheduleFile) -> tuple[Path, ...]:
    """Keep each schedule with its stage, where `--steps N` finds it; returns where."""
    written = list[Path]()
    for one in file.schedules:
        path = place_schedule(header, one.steps)
        make_directory(path.parent)
        write_settings(path, file.model_copy(update={"schedules": (one,)}))
        written.append(path)
    return tuple(written)


def make_file(search: Search, log: Log) -> ScheduleFile:
    """Return the best schedule of each number of steps whose search is complete."""
    head = log.head
    all_steps = sorted({trial.steps for trial in log.trials})
    complete = 1 + int(search.identity["trials"])
    return ScheduleFile(
        cdm_version=__version__,
        stage=head.stage,
        stage_digest=head.stage_digest,
        config_digest=compute_config_digest(search.header.config),
        lowres=search.inputs.lowres,
        lowres_digest=search.identity.get("lowres", ""),
        metric=f"fid vs {head.reference}",
        convention=head.convention,
        s=search.s,
        num=len(search.inputs.shown.ids),
        seed=search.sampling.seed,
        clip=search.sampling.clip,
        schedules=tuple(
            _describe_best(search, steps, log)
            for steps in all_steps
            if len(log.of(steps)) == complete
        ),
    )


def _describe_best(search: Search, steps: int, log: Log) -> Searched:
    """Return the trial of the lowest FID as a schedule."""
    trials = log.of(steps)
    best, baseline = find_best_trial(trials), search.build_baseline(steps)
    found: dict[str, Any] = {"sampler": baseline.sampler}
    tried = read_schedule(search, best)
    if isinstance(tried, Way):
        found = {name.name: getattr(tried, name.name) for name in fields(tried)}
    elif tried is not None:
        found["alpha_bar"] = tried.alpha_bar
    elif search.method == "linear":
        found["alpha_bar"] = tuple(baseline.schedule.alpha_bar[1:].tolist())
    else:
        found["times"] = tuple(reversed(baseline.schedule.times[1:].tolist()))
    gain = log.gains.get(steps)
    if (steps, "tuned") in log.judged:
        own, tuned = (log.judged[steps, name].estimate for name in ("uniform", "tuned"))
        gain = measure_gain(search, steps, own, tuned)
    return Searched(
        steps=steps,
        **found,
        variance=best.variance,
        beta_1=best.beta_1,
        beta_T=best.beta_T,
        score=best.fid,
        baseline=trials[0].fid,
        trials=len(trials) - 1,
        gain=gain,
        compared=compare_judged(log, steps),
    )


def _make_table(file: ScheduleFile) -> str:
    """Return a line for each schedule that was judged on fresh images, one for the reference."""
    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in file.schedules:
        for row in one.compared:
            if row.name != "reference":
                writer.writerow([one.steps, *row.model_dump().values()])
            elif one is file.schedules[0]:
                writer.writerow(["", *row.model_dump().values()])
    return held.getvalue()


def _draw_curve(file: ScheduleFile) -> bytes:
    """Draw FID on fresh images against the number of steps, as Figure 8."""
    figure = make_figure(6, 4.5)
    axes: Any = figure.add_subplot()
    for name, (colour, words) in SHOWN.items():
        line = _select_scores(file.schedules, name)
        if line:
            steps, fid, error = zip(*line, strict=True)
            axes.errorbar(steps, fid, yerr=error, capsize=2, marker="o", color=colour, label=words)
    many = [row for one in file.schedules for row in one.compared if row.name == "reference"]
    if many:
        axes.axhline(many[0].fid, color="black", linestyle="--", label="ancestral, many steps")
    axes.set_xscale("log")
    axes.set_yscale("log")
    _label_within_decades(axes.yaxis)
    axes.set_xlabel("steps")
    num = next(row.num for one in file.schedules for row in one.compared)
    axes.set_ylabel(f"FID of {num} images")
    axes.set_xticks(ticks := [one.steps for one in file.schedules], [str(n) for n in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.legend(fontsize="small")
    return encode_figure(figure)


def _label_within_decades(axis: Any) -> None:
    """Label a logarithmic axis between powers of ten, too: one decade may hold all of it."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _select_scores(schedules: Sequence[Searched], name: str) -> list[tuple[int, float, float]]:
    return [
        (one.steps, row.fid, row.error or 0.0)
        for one in schedules
        for row in one.compared
        if row.name == name
    ]
