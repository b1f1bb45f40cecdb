"""`--apply`: what a sweep chose becomes what `cdm upsample` takes for the stage by default."""

from collections.abc import Sequence
from dataclasses import asdict

from cdm_cli.errors import MismatchError
from cdm_cli.jobs.sampling.defaults import KEPT, apply
from cdm_cli.jobs.sweep.choice import Chosen, Judged, choose, conclude, name_point
from cdm_cli.jobs.sweep.plan import Sweep
from cdm_cli.options.sweeping import UNKEPT, SweepOptions
from cdm_cli.plans import Applied
from cdm_cli.report import Report


def apply_chosen(
    options: SweepOptions, sweep: Sweep, points: Sequence[Judged], report: Report
) -> None:
    """Choose among the judged points, make the choice the stage's default, and say how sure it is.

    Raises MismatchError as `make_applied` does, and what `defaults.apply` raises.
    """
    chosen = choose(points)
    found = make_applied(options, sweep, chosen, conclude(points))
    decided = next(one.decided for one in points if one.labels == chosen.labels)
    weights = {**sweep.identity, **decided}["weights"]
    apply(sweep.header.directory, found, weights, report)
    report.say(say_how_sure(chosen))


def make_applied(options: SweepOptions, sweep: Sweep, chosen: Chosen, conclusion: str) -> Applied:
    """Return the chosen point as the defaults of a stage. conclusion: the sentence they record.

    Raises MismatchError for a point that is certain to be worse than another, and for one with a
    setting of which a stage keeps no default.
    """
    asked = asdict(options.sampling) | chosen.axes
    name = name_point(chosen.labels)
    if (chosen.standing or "").startswith("worse"):
        raise _apply_error(
            sweep, f"{name} has the lowest FID, and is {chosen.standing}", "--num more"
        )
    for setting, default in UNKEPT.items():
        if asked[setting] != default:
            told = f"{name} is chosen, and stages keep no default of {setting.replace('_', '-')}"
            raise _apply_error(
                sweep, told, f"cdm upsample --s {chosen.s} with the flags of that point"
            )
    return Applied(
        s=chosen.s,
        augment="truncated" if chosen.augment == "truncated" else "non-truncated",
        sampler=asked["sampler"],
        steps=asked["steps"],
        variance=asked["variance"],
        by=sweep.out.as_posix(),
        found=conclusion,
    )


def say_how_sure(chosen: Chosen) -> str:
    """Return in one line how certain it is that the chosen point is the best.

    "As good as the best" means that the numbers do not tell some points apart; it is applied, too.
    """
    name = name_point(chosen.labels)
    if chosen.tied is None:
        return f"{name} has the lowest FID; how surely it is the best is not known"
    if not chosen.tied:
        return f"{name} is the best with certainty"
    others = "another point is" if len(chosen.tied) == 1 else f"{len(chosen.tied)} others are"
    return f"{name} is as good as the best, and {others}: nothing tells them apart"


def _apply_error(sweep: Sweep, what: str, next: str) -> MismatchError:
    return MismatchError(
        f"--apply: {what}",
        kept=f"{sweep.out} is complete; of {sweep.header.directory}, {KEPT}",
        next=next,
    )
