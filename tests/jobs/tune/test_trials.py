"""Mirrors cdm_cli/jobs/tune/trials.py, gain.py, begin.py, result.py: a free search, whole.

Here too: images.py, judge.py, plan.py.
"""

import csv
import json
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from cdm_cli.cascade.snapshot import save_ema
from cdm_cli.errors import (
    BadInputError,
    MemoryFloorError,
    MismatchError,
    MissingError,
    UsageError,
    WouldOverwriteError,
)
from cdm_cli.jobs.judging import evaluate
from cdm_cli.jobs.sampling import sample, upsample
from cdm_cli.jobs.sampling.schedule_file import ScheduleFile
from cdm_cli.jobs.sweep import sweep
from cdm_cli.jobs.sweep.plan import plan_work as planned_sweep
from cdm_cli.jobs.tune import begin as beginning
from cdm_cli.jobs.tune import trials as trying
from cdm_cli.jobs.tune.judge import Scorer
from cdm_cli.jobs.tune.log import FirstTimes, Trial, read_log, read_way
from cdm_cli.jobs.tune.plan import plan_work
from cdm_cli.jobs.tune.result import _draw_curve
from cdm_cli.jobs.tune.trials import choose_next
from cdm_cli.jobs.tune.tune import plan, run
from cdm_cli.jobs.tune.ways import Way, vary
from cdm_cli.options.judging import EvalOptions, TuneOptions
from cdm_cli.options.sampling import Compute, SampleOptions, Sampling, UpsampleOptions
from cdm_cli.options.sweeping import SweepOptions
from tests.asking import as_typed
from tests.jobs.sweep.sweeping import CPU, JUDGE, write_workspace
from tests.tiny import Told, continuous_config, in_new_folder, net_of, sr_config, write_stage

NUM, TRIALS, REFERENCE = 24, 9, 8
OUT, LOG = Path("schedule.json"), Path("schedule.trials.jsonl")


def options(**changes):
    values = {
        "model": "sr", "s": 5, "steps": (2,), "num": NUM, "trials": TRIALS, "judge": JUDGE,
        "reference": REFERENCE,
    }  # fmt: skip
    return as_typed(TuneOptions, **(values | changes))


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Few ways are compared with the teacher: its own tests are next door."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cdm_cli.jobs.tune.begin.TRIES", 4)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory, quick):
    """A workspace whose stage is fed t, and a search in it that nothing disturbed."""
    with in_new_folder(tmp_path_factory) as home:
        write_workspace(home, sr_config(4, 8))
        run(options(steps=(3, 2), apply=True), Told())
    return home


@pytest.fixture
def workspace(tuned):
    for path in (OUT, LOG, OUT.with_suffix(".csv"), OUT.with_suffix(".png")):
        path.unlink()
    shutil.rmtree("runs/sr/schedules")
    return tuned


def schedules():
    return {one.steps: one for one in ScheduleFile.model_validate_json(OUT.read_text()).schedules}


def fid_of(store="samples.h5"):
    asked = as_typed(EvalOptions, metrics=("fid",), stores=(Path(store),), judge=JUDGE)
    return evaluate.run(asked, Told()).table.value("fid", "train")


def upsampled(told=None, **changes):
    asked = {"model": "sr", "s": 5, "num": NUM, "compute": CPU} | changes
    return upsample.run(as_typed(UpsampleOptions, **asked), told or Told())


def test_what_does_not_fit_shows_fewer_images(workspace, monkeypatch):
    """To the teacher, and to the bound; what else is searched goes on as it was."""

    def limited(call, num):
        def within(*args, **how):
            if num(args) > 5:
                raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")
            seen.append(num(args))
            return call(*args, **how)

        return within

    seen, told = list[int](), Told()
    rows = {"predict": lambda args: len(args[2]), "walk_path": lambda args: args[3].V.shape[1]}
    for name, num in rows.items():
        monkeypatch.setattr(beginning, name, limited(getattr(beginning, name), num))
    run(options(trials=1), told)
    assert set(seen) == {4}
    assert [line for line in told.lines if "out of device memory" in line]
    monkeypatch.setattr(beginning, "walk_path", limited(None, lambda args: 6))
    with pytest.raises(MemoryFloorError, match="one image at a time does not fit"):
        run(options(trials=1, out=Path("other.json")), told)


def test_a_network_that_gives_what_is_not_finite_is_not_searched(workspace):
    state = {name: 1e18 * value for name, value in net_of(sr_config(4, 8), 0).state_dict().items()}
    save_ema(Path("runs/sr"), state, step=2)
    with pytest.raises(BadInputError, match="sr gives images that are not finite"):
        run(options(), Told())


@pytest.mark.parametrize("steps", [2, 3])
def test_upsample_on_the_file_gives_the_score(tuned, steps):
    made = upsampled(sampling=Sampling(schedule=OUT, steps=steps))
    assert made.network_evaluations == steps * NUM
    assert fid_of() == pytest.approx(schedules()[steps].score, rel=1e-9)


def test_what_is_kept_with_the_stage_is_chosen_by_its_steps(tuned):
    told = Told()
    upsampled(told, sampling=Sampling(steps=2), out=Path("kept.h5"))
    assert any("runs/sr/schedules/steps-2.json" in line for line in told.lines)
    upsampled(sampling=Sampling(schedule=OUT, steps=2), out=Path("named.h5"))
    with upsample.open_store("kept.h5") as one, upsample.open_store("named.h5") as two:
        assert one.parts[""].images(8).tobytes() == two.parts[""].images(8).tobytes()
        identity = [store.provenance["identity"] for store in (one, two)]
    assert identity[0] == identity[1]
    assert identity[0]["times"] == sorted(schedules()[2].times)
    assert identity[0].get("stochasticity") == (
        None if schedules()[2].stochasticity is None else list(schedules()[2].stochasticity)
    )
    told = Told()
    upsampled(told, sampling=Sampling(steps=2, sampler="ddim"), out=Path("own.h5"))
    with upsample.open_store("own.h5") as store:
        assert store.provenance["identity"]["times"] == [1, 20]
    assert not any("schedules" in line for line in told.lines)


def test_a_sweep_over_steps_takes_what_is_kept_and_says_so(tuned):
    told = Told()
    asked = as_typed(
        SweepOptions, model="sr", s=(5,), axes=("steps=2,4",), num=20, out="sweep", judge=JUDGE
    )
    with ExitStack() as stack:
        points = planned_sweep(asked, stack, told).points
    times = [point.work.chain.schedule.times.tolist()[1:] for point in points]
    assert sorted(schedules()[2].times) in times
    sweep.plan(asked, told)
    assert [line for line in told.lines if "steps-2.json" in line]
    assert not [line for line in told.lines if "steps-4.json" in line]


def test_no_steps_and_other_steps_have_no_kept_schedule(tuned):
    for steps in (None, 4):
        told = Told()
        upsampled(told, sampling=Sampling(steps=steps), out=Path(f"{steps}.h5"))
        assert not any("kept in" in line for line in told.lines)


def test_everything_is_compared_with_many_steps_on_the_same_fresh_images(tuned):
    log = read_log(LOG)
    assert log.judged[0, "reference"].num == NUM
    rows = list(csv.DictReader(OUT.with_suffix(".csv").read_text().splitlines()))
    assert [row["name"] for row in rows].count("reference") == 1
    for steps, one in schedules().items():
        names = [row.name for row in one.compared]
        assert names[:3] == ["reference", "uniform", "elbo"]
        assert {row["name"] for row in rows if row["steps"] == str(steps)} == set(names[1:])
        assert one.compared[0].difference is None
        for row in one.compared[1:]:
            reference, judged = log.judged[0, "reference"], log.judged[steps, row.name]
            assert row.fid == judged.value
            gap = judged.estimate.minus(reference.estimate)
            assert row.difference == pytest.approx(gap.corrected)
            assert row.uncertainty == pytest.approx(gap.error)
        if "tuned" in names:
            gap = log.judged[steps, "uniform"].estimate.minus(log.judged[steps, "tuned"].estimate)
            assert one.gain.gain == pytest.approx(gap.corrected)
    assert OUT.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    drawn = f"{OUT}, {OUT.with_suffix('.csv')}, {OUT.with_suffix('.png')}, {LOG}"
    again = run(options(steps=(3, 2)), Told())
    assert again.show_in_short()[2] == f"written: {drawn}"


@pytest.mark.parametrize("span", [(1.6, 28), (2.1, 4.8), (6.1, 7.2), (11, 19)])
def test_the_curve_can_be_read_within_a_decade(tuned, monkeypatch, span):
    said = list[str]()

    def save(figure, *_, **__):
        (axes,) = figure.axes
        axes.set_ylim(span)
        figure.canvas.draw()
        ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
        minor = zip(axes.get_yticks(minor=True), axes.get_yticklabels(minor=True), strict=True)
        inside = [text for at, text in (*ticks, *minor) if span[0] <= at <= span[1]]
        said.extend(text.get_text() for text in inside if text.get_text())

    monkeypatch.setattr(Figure, "savefig", save)
    _draw_curve(ScheduleFile.model_validate_json(OUT.read_text()))
    assert len(said) >= 2


def test_there_is_a_curve_where_the_first_schedule_is_not_judged_yet(tuned):
    """A search that was killed before that, without a reference, and joined by other steps."""
    file = ScheduleFile.model_validate_json(OUT.read_text())
    first, *others = file.schedules
    killed = file.model_copy(
        update={"schedules": (first.model_copy(update={"compared": ()}), *others)}
    )
    assert _draw_curve(killed).startswith(b"\x89PNG")


class KilledError(Exception):
    pass


@pytest.mark.parametrize("share", [0.2, 0.97])
def test_a_search_that_is_killed_continues_and_ends_in_the_same_bytes(
    made, workspace, monkeypatch, share
):
    counted = Told()
    run(options(out="whole.json"), counted)

    def kill(done):
        if done >= share * counted.done:
            raise KilledError

    with pytest.raises(KilledError):
        run(options(), Told(kill))
    run(options(), Told())
    for name in ("schedule.trials.jsonl", "schedule.json", "schedule.csv"):
        assert Path(name).read_bytes() == Path(name.replace("schedule", "whole")).read_bytes()


def test_the_same_command_again_does_nothing(tuned, monkeypatch):
    before = OUT.read_bytes(), LOG.read_bytes()
    monkeypatch.setattr("cdm_cli.jobs.tune.judge.open_panel", None)
    run(options(steps=(2, 3)), Told())
    assert (OUT.read_bytes(), LOG.read_bytes()) == before


def test_a_linear_search_does_not_join_a_free_one(tuned):
    with pytest.raises(MismatchError, match=r"no linear schedule can be searched"):
        run(options(search="linear"), Told())
    with pytest.raises(WouldOverwriteError, match="--reference was 8, is 9"):
        run(options(reference=9), Told())


def test_a_base_stage_needs_no_store(workspace):
    asked = options(
        model="base", s=None, trials=6, lowres=Path("nowhere.h5"), apply=True,
        sampling=Sampling(clip=False),
    )  # fmt: skip
    with pytest.raises(UsageError, match="has no s"):
        run(replace(asked, s=5), Told())
    run(asked, Told())
    one, told = schedules()[2], Told()
    made = sample.run(
        as_typed(SampleOptions, num=NUM, compute=CPU, out="own.h5", sampling=Sampling(steps=2)),
        told,
    )
    assert any("steps-2.json was searched with --no-clip" in line for line in told.lines)
    assert made.network_evaluations == 2 * NUM
    with upsample.open_store("own.h5") as store:
        assert store.provenance["identity"]["times"] == sorted(one.times)


def test_a_base_stage_is_judged_on_what_sample_draws(workspace):
    """With a judge of its resolution, the FID of a trial is that of `sample` on the schedule."""
    from tests.tiny import base_config

    write_stage(workspace / "runs/high", base_config(8))
    run(options(model="high", s=None, trials=4, reference=0), Told())
    asked = Sampling(schedule=OUT, steps=2)
    sample.run(
        as_typed(SampleOptions, stage="high", num=NUM, compute=CPU, out="a.h5", sampling=asked),
        Told(),
    )
    assert fid_of("a.h5") == pytest.approx(schedules()[2].score, rel=1e-9)


def test_two_processes_find_the_same(made, workspace, in_pair):
    two = replace(JUDGE, compute=Compute(device="cpu", batch_size=32, gpus=2))
    run(options(trials=1, judge=two, reference=0), Told())
    alone = [json.loads(line) for line in (made / LOG).read_text().splitlines()[1:]]
    fids = [line["fid"] for line in alone if line["steps"] == 2 and "fid" in line][:2]
    log = read_log(LOG)
    assert [trial.fid for trial in log.of(2)] == pytest.approx(fids, rel=1e-6)


class Evaluations(Told):
    """Counts those of every bar, within another one or not."""

    def __init__(self):
        super().__init__()
        self.num = 0

    @contextmanager
    def track(self, what, total, unit, done=0):
        with super().track(what, total, unit, done) as advance:
            yield advance
        self.num += (total - done) * (unit == "evaluations")


def test_dry_run_counts_what_the_run_evaluates_at_most(workspace):
    """Nearly all of it: the images of the teacher are one batch, of these stages a small one."""
    told, cost = Evaluations(), plan(options(), Told())
    run(options(), told)
    assert cost["trials"] == TRIALS + 1
    assert 0.7 * cost["network_evaluations"] < told.num <= cost["network_evaluations"]
    assert plan(options(), Told())["network_evaluations"] == 0


def search_of(**changes):
    with ExitStack() as stack:
        return plan_work(options(**changes), stack, Told())


def judged(search, begun, score, trials):
    """Make trials by a closed form, without images."""
    made = []
    for number in range(trials + 1):
        tried = choose_next(search, begun.steps, begun, made)
        one = Trial(steps=begun.steps, number=number, origin="baseline", variance="small", fid=99.0)
        if tried is not None:
            origin, way = tried
            one = one.model_copy(update={
                "origin": origin, "times": way.times, "stochasticity": way.stochasticity,
                "sampler": way.sampler, "fid": score(way),
            })  # fmt: skip
        made.append(one)
    return made


def test_variations_near_a_known_optimum(workspace):
    """Best at three times and a stochasticity of 0.7."""
    write_stage(workspace / "runs/long", sr_config(4, 8, schedule={"T": 1000}))
    search = search_of(model="long", steps=(3,))
    begun = FirstTimes(steps=3, elbo=None, teacher=(900, 300, 90))

    def score(way: Way):
        off = sum(((t - u) / 1000) ** 2 for t, u in zip(way.times, (800, 500, 60), strict=True))
        return 10 * off + sum((k - 0.7) ** 2 for k in way.stochasticity)

    trials = judged(search, begun, score, 80)
    starts = [trial.fid for trial in trials if trial.origin in ("teacher", "shaped")]
    assert len({(t.times, t.stochasticity, t.sampler) for t in trials}) == len(trials)
    assert min(trial.fid for trial in trials) < 0.3 * min(starts)
    assert [t.times for t in judged(search, begun, score, 20)] == [t.times for t in trials[:21]]


def test_the_best_of_dropped_ways_is_varied_where_all_of_them_are_dropped(workspace, monkeypatch):
    """The stage's own schedule may be better than all that a search begins with."""
    search, begun = search_of(), FirstTimes(steps=3, elbo=None, teacher=(17, 9, 4))
    own, *ways = judged(search, begun, lambda way: 100.0 + way.times[0], 14)
    dropped = [own, *(trial.model_copy(update={"dropped": True}) for trial in ways)]
    varied = list[Way]()
    monkeypatch.setattr(trying, "vary", lambda way, *to: varied.append(way) or vary(way, *to))
    tried = choose_next(search, 3, begun, dropped)
    assert tried is not None
    assert tried[0] == "varied"
    assert varied[0] == read_way(min(ways, key=lambda trial: (trial.fid, trial.number)))


def keep_schedules(path, *given):
    """Write a schedule file with these fields of its schedules."""
    one = {"variance": "small", "score": 1.0, "baseline": 2.0, "trials": 9}
    head = {
        "cdm_version": "0", "stage": "sr", "stage_digest": "", "config_digest": "other",
        "lowres": "", "lowres_digest": "", "metric": "fid vs train", "convention": {}, "s": 7,
        "num": 9, "seed": 0,
    }  # fmt: skip
    file = ScheduleFile.model_validate({**head, "schedules": [one | fields for fields in given]})
    path.write_text(file.model_dump_json())


def test_a_search_begins_with_what_another_found(workspace):
    """Of each number of steps the file has: tried first, then varied as what else is found."""
    found = {"sampler": "dpm-solver++", "times": (17, 4), "stochasticity": (0.25, 0.5)}
    own = {"steps": 4, "sampler": "ancestral", "times": (20, 15, 10, 5)}
    keep_schedules(Path("earlier.json"), {"steps": 2} | found, own)
    asked = options(start=Path("earlier.json"), steps=(2, 3))
    run(asked, Told())
    log = read_log(LOG)
    assert log is not None
    first = log.of(2)[1]
    assert (first.origin, first.times) == ("given", (17, 4))
    assert first.stochasticity == (0.25, 0.5)
    assert {trial.origin for trial in log.of(3)}.isdisjoint({"given"})
    run(asked, Told())
    with pytest.raises(WouldOverwriteError, match="start"):
        run(options(), Told())


@pytest.mark.parametrize("recorded", ["all", "searched"])
def test_other_numbers_of_steps_of_the_same_file_join_a_search(workspace, recorded):
    """An earlier version recorded the ways that it tried, not all of the file."""
    found = {"sampler": "dpm-solver++", "stochasticity": (0.25, 0.5)}
    of_3 = {"sampler": "ddim", "times": (19, 9, 2), "stochasticity": (0.1, 0.2, 0.3)}
    keep_schedules(
        Path("earlier.json"), {"steps": 2, "times": (17, 4)} | found, {"steps": 3} | of_3
    )
    asked = options(start=Path("earlier.json"), trials=2)
    run(replace(asked, steps=(2,)), Told())
    if recorded == "searched":
        head, *lines = LOG.read_text().splitlines(keepends=True)
        before = json.loads(head)
        assert before["identity"]["start"].pop("3")["times"] == [19, 9, 2]
        LOG.write_text("".join([json.dumps(before) + "\n", *lines]))
    for _ in range(2):
        run(replace(asked, steps=(3,)), Told())
    log = read_log(LOG)
    assert log is not None
    assert [(one.origin, one.times) for one in (log.of(2)[1], log.of(3)[1])] == [
        ("given", (17, 4)), ("given", (19, 9, 2)),
    ]  # fmt: skip
    keep_schedules(
        Path("earlier.json"), {"steps": 2, "times": (17, 5)} | found, {"steps": 3} | of_3
    )
    with pytest.raises(WouldOverwriteError, match="start"):
        run(replace(asked, steps=(3,)), Told())


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"steps": (4, 5)}, UsageError, r"schedules of 2, 3 steps with times.*asks for 4, 5"),
        ({"steps": (2, 3)}, MismatchError, "its schedule of 3 steps has 2 times"),
        ({"search": "linear", "model": "continuous"}, UsageError, "begins with none"),
        ({"model": "short"}, MismatchError, r"visits t = 17, the stage was trained on 1\.\.9"),
        ({"start": Path("none.json")}, MissingError, "none.json"),
    ],
)
def test_what_a_search_cannot_begin_with(workspace, changes, error, says):
    write_stage(workspace / "runs/short", sr_config(4, 8, schedule={"T": 9}))
    write_stage(workspace / "runs/continuous", continuous_config(4, 8))
    found = {"sampler": "ddim", "times": (17, 4), "stochasticity": (0.25, 0.5)}
    own = {"steps": 4, "sampler": "ancestral", "times": (20, 15, 10, 5)}
    keep_schedules(Path("earlier.json"), {"steps": 2} | found, {"steps": 3} | found, own)
    asked = {"start": Path("earlier.json"), "s": 0 if "search" in changes else 5} | changes
    with pytest.raises(error, match=says):
        plan(options(**asked), Told())


def test_a_trial_that_is_worse_on_the_first_images_is_dropped(workspace, monkeypatch):
    """Of 80 images, 20 are first. Dropped trials cost a quarter, and are never the best."""
    search = search_of(num=66)
    assert search.trials == TRIALS
    shown = []
    real = Scorer._show

    def show(self, drawn, places, *others):
        shown.append(len(places))
        return real(self, drawn, places, *others)

    monkeypatch.setattr(Scorer, "_show", show)
    monkeypatch.setattr("cdm_cli.jobs.tune.judge.FIRST", 3)
    monkeypatch.setattr("cdm_cli.jobs.tune.judge.tell_apart", lambda one, best: "worse")
    run(options(num=66, trials=3, reference=0), Told())
    trials = read_log(LOG).of(2)
    assert [trial.dropped for trial in trials] == [False, True, True, True]
    assert shown[:5] == [22, 44, 22, 22, 22]
    assert schedules()[2].score == trials[0].fid
    assert schedules()[2].times is not None
