"""Mirrors cdm_cli/jobs/tune/tune.py: trials are paired, logged one by one, never repeated.

Here too: found.py, log.py.
"""

import json
import math
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cdm_cli.cascade.checkpoint import load_diffusion_stage
from cdm_cli.commands._render import write_lines
from cdm_cli.config import ConditioningConfig
from cdm_cli.data.lock import hold_file
from cdm_cli.data.store import open_store
from cdm_cli.errors import (
    BadInputError,
    MismatchError,
    MissingError,
    StoppedError,
    UsageError,
    WouldOverwriteError,
)
from cdm_cli.jobs.judging import evaluate
from cdm_cli.jobs.judging.images import from_store
from cdm_cli.jobs.judging.panel import measure, open_panel
from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.sampling import upsample
from cdm_cli.jobs.sampling.schedule_file import Gain, Searched
from cdm_cli.jobs.tune.gain import conclude
from cdm_cli.jobs.tune.judge import Scorer
from cdm_cli.jobs.tune.plan import plan_work
from cdm_cli.jobs.tune.tune import plan, run
from cdm_cli.options.judging import EvalOptions, TuneOptions
from cdm_cli.options.sampling import Compute, Sampling, UpsampleOptions
from tests.asking import as_typed, type_advice
from tests.jobs.sweep.sweeping import CPU, JUDGE, judged_images, write_judge, write_workspace
from tests.tiny import (
    COSINE,
    Told,
    arrays_of,
    continuous_config,
    in_new_folder,
    sr_config,
    write_stage,
    write_store,
)

NUM, TRIALS = 24, 3
OUT, LOG = Path("schedule.json"), Path("schedule.trials.jsonl")
SR = continuous_config(4, 8)


def options(**changes):
    values = {
        "model": "sr", "steps": (2,), "num": NUM, "trials": TRIALS, "judge": JUDGE,
        "search": "linear",
    }  # fmt: skip
    return as_typed(TuneOptions, **(values | changes))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace, and a search in it that nothing disturbed."""
    with in_new_folder(tmp_path_factory) as home:
        write_workspace(home, SR)
        run(options(steps=(4, 2)), Told())
    return home


@pytest.fixture
def workspace(tuned):
    """The same workspace, without the search."""
    OUT.unlink()
    LOG.unlink()
    return tuned


def lines():
    return [json.loads(line) for line in LOG.read_text().splitlines()[1:]]


def trials():
    return [line for line in lines() if "number" in line]


def gains():
    return [line for line in lines() if "gain" in line]


def found():
    return json.loads(OUT.read_text())


@pytest.fixture
def scored(monkeypatch):
    """Replace the judge by a closed form: best at beta_1 = 0.01 and alpha_bar_T = 0.001."""
    seen = []

    def fid(self, chain, what):
        seen.append(what)
        alpha_bar = chain.schedule.alpha_bar
        far = math.log(float(1 - alpha_bar[1]) / 0.01) ** 2
        far += math.log(float(alpha_bar[-1]) / 0.001) ** 2
        return far + (1.0 if chain.variance == "small" else 0.0)

    monkeypatch.setattr(Scorer, "fid", fid)
    return seen


@pytest.mark.parametrize("steps", [2, 4])
def test_upsample_on_the_file_gives_the_score(tuned, steps):
    asked = Sampling(schedule=OUT, steps=steps)
    upsample.run(
        as_typed(UpsampleOptions, model="sr", num=NUM, compute=CPU, sampling=asked), Told()
    )
    table = evaluate.run(as_typed(EvalOptions, metrics=("fid",), judge=JUDGE), Told()).table
    (schedule,) = (one for one in found()["schedules"] if one["steps"] == steps)
    assert table.value("fid", "train") == pytest.approx(schedule["score"], rel=1e-9)
    assert found()["convention"]["extractor"] == table.rows[0].convention.extractor
    assert found()["metric"] == "fid vs train"


def test_the_baseline_is_the_stages_own_schedule_respaced(tuned):
    asked = as_typed(UpsampleOptions, model="sr", num=NUM, compute=CPU, sampling=Sampling(steps=2))
    upsample.run(asked, Told())
    table = evaluate.run(as_typed(EvalOptions, metrics=("fid",), judge=JUDGE), Told()).table
    baseline = found()["schedules"][0]["baseline"]
    assert table.value("fid", "train") == pytest.approx(baseline, rel=1e-9)
    assert trials()[0] | {"fid": 0} == {
        "steps": 2, "number": 0, "origin": "baseline", "place": None, "beta_1": None,
        "beta_T": None, "variance": "small", "fid": 0,
    }  # fmt: skip


def test_the_file_holds_the_best_of_all_trials(tuned):
    for schedule in found()["schedules"]:
        tried = [trial for trial in trials() if trial["steps"] == schedule["steps"]]
        assert [trial["number"] for trial in tried] == list(range(TRIALS + 1))
        best = min(tried, key=lambda trial: trial["fid"])
        assert {name: best[name] for name in ("beta_1", "beta_T", "variance")} == {
            name: schedule[name] for name in ("beta_1", "beta_T", "variance")
        }
        assert (schedule["score"], schedule["trials"]) == (best["fid"], TRIALS)
        assert len(schedule["alpha_bar"]) == schedule["steps"]
    stage = load_diffusion_stage("sr", Path("runs"))
    assert (found()["stage"], found()["stage_digest"]) == ("sr", stage.digest)


def test_a_known_optimum_is_found(workspace, scored):
    result = run(options(steps=(4,), trials=24), Told())
    (best,) = result.schedules
    assert best.fid < 1 < 20 < best.baseline
    assert 0.005 < best.beta_1 < 0.02
    assert 0.0004 < best.alpha_bar_T < 0.0025
    assert best.variance == "large"
    assert best.gain == pytest.approx(100 * (1 - best.fid / best.baseline))
    assert len(scored) == 25


def test_a_baseline_that_no_trial_beats_is_what_is_written(workspace, monkeypatch):
    monkeypatch.setattr(Scorer, "fid", lambda self, chain, what: float(chain.searched))
    (best,) = run(options(), Told()).schedules
    assert (best.fid, best.baseline, best.beta_1, best.beta_T) == (0.0, 0.0, None, None)
    asked = as_typed(
        UpsampleOptions, model="sr", num=4, compute=CPU, sampling=Sampling(schedule=OUT)
    )
    with_file = upsample.run(asked, Told())
    assert with_file.network_evaluations == 2 * 4
    upsample.run(replace(asked, sampling=Sampling(steps=2), out=Path("own.h5")), Told())
    with upsample.open_store("samples.h5") as one, upsample.open_store("own.h5") as two:
        assert one.parts[""].images(8).tobytes() == two.parts[""].images(8).tobytes()


def test_the_variance_is_only_searched_where_it_is_left_open(workspace, scored):
    run(options(trials=9), Told())
    assert {trial["variance"] for trial in trials()} == {"small", "large"}
    run(options(trials=9, out="own.json", sampling=Sampling(variance="large")), Told())
    there = map(json.loads, Path("own.trials.jsonl").read_text().splitlines()[1:])
    assert {line["variance"] for line in there if "number" in line} == {"large"}


def test_another_sampler_keeps_its_own(workspace, scored):
    run(options(sampling=Sampling(sampler="ddim")), Told())
    assert found()["schedules"][0]["sampler"] == "ddim"
    asked = Sampling(schedule=OUT, steps=2)
    upsample.run(as_typed(UpsampleOptions, model="sr", num=4, compute=CPU, sampling=asked), Told())


def test_the_same_command_again_does_nothing(tuned, monkeypatch):
    before = OUT.read_bytes(), LOG.read_bytes()
    monkeypatch.setattr("cdm_cli.jobs.tune.judge.load_fast_stage", loaded)
    monkeypatch.setattr("cdm_cli.jobs.tune.judge.open_panel", loaded)
    result = run(options(steps=(2, 4)), Told())
    assert (OUT.read_bytes(), LOG.read_bytes()) == before
    assert [one.steps for one in result.schedules] == [2, 4]


def loaded(*_, **__):
    raise AssertionError("weights were loaded")


class KilledError(Exception):
    pass


@pytest.mark.parametrize("evaluations", [30, 5 * 2 * NUM])
def test_a_search_that_is_killed_continues_and_ends_in_the_same_bytes(
    made, workspace, monkeypatch, evaluations
):
    """Killed within the baseline of 2 steps, and within the trials of 4."""

    def kill(done):
        if done >= evaluations:
            raise KilledError

    with pytest.raises(KilledError):
        run(options(steps=(2, 4)), Told(kill))
    there, judged = len(trials()), len(gains())
    with LOG.open("a") as file:
        file.write('{"steps":2,"numb')  # what a kill during the append leaves
    seen = judged_images(monkeypatch)
    run(options(steps=(2, 4)), Told())
    assert LOG.read_bytes() == (made / LOG).read_bytes()
    assert OUT.read_bytes() == (made / OUT).read_bytes()
    assert sum(seen) == NUM * (2 * (TRIALS + 1) - there + 2 * (len(gains()) - judged))


def search_of(**changes):
    with ExitStack() as stack:
        return plan_work(options(**changes), stack, Told())


def judged_on(ids, **changes):
    """FID against train of those of all samples that have these ids."""
    asked = {"model": "sr", "compute": CPU, "sampling": Sampling(**changes)}
    upsample.run(as_typed(UpsampleOptions, out=Path("all.h5"), **asked), Told())
    with open_store("all.h5") as store:
        images = from_store(store, None, None, None, 0)
        at = np.flatnonzero(np.isin(images.ids, ids))
        images = replace(images, rows=images.rows[at], ids=images.ids[at], labels=images.labels[at])
        panel = open_panel(JUDGE, 8, Session(torch.device("cpu")), features=False)
        Path("all.h5").unlink()
        return measure(panel, images, ("fid",)).row("fid", "train")


def test_what_it_gains_is_judged_on_images_that_did_not_choose_it(tuned):
    search = search_of()
    assert (search.inputs.fresh_by, len(search.inputs.fresh.ids)) == ("images", NUM)
    assert set(search.inputs.fresh.ids).isdisjoint(search.inputs.shown.ids)
    schedule = next(one for one in found()["schedules"] if one["gain"])
    steps, gain = schedule["steps"], schedule["gain"]
    own = judged_on(search.inputs.fresh.ids, steps=steps)
    best = judged_on(search.inputs.fresh.ids, steps=steps, schedule=OUT)
    gap = own.estimate.minus(best.estimate)
    assert (gain["baseline"], gain["score"]) == pytest.approx((own.value, best.value), rel=1e-3)
    assert gain["gain"] == pytest.approx(gap.corrected, rel=0.02)
    assert gain["uncertainty"] == pytest.approx(gap.error, rel=0.02)
    assert gain["verdict"] in ("better", "worse", "not told apart")
    result = run(options(), Told())
    assert f"In {steps} steps the schedule" in result.conclusion
    shown = next(one for one in result.schedules if one.steps == steps)
    assert (shown.fresh_gain, shown.uncertainty) == (gain["gain"], gain["uncertainty"])


def test_without_other_images_the_noise_is_another(workspace, monkeypatch):
    monkeypatch.setattr(Scorer, "fid", lambda self, chain, what: float(not chain.searched))
    run(options(num=50, trials=1), Told())
    (gain,) = gains()
    assert (gain["fresh"], gain["num"]) == ("noise", 50)
    own = judged_on(search_of(num=50).inputs.shown.ids, steps=2, seed=1)
    assert gain["baseline"] == pytest.approx(own.value, rel=1e-3)


def test_an_old_log_gets_no_gain(tuned, monkeypatch):
    head, *rest = LOG.read_text().splitlines(keepends=True)
    old = [line for line in rest if '"gain"' not in line]
    LOG.write_text("".join([head.replace(',"gains":true', ""), *old]))
    monkeypatch.setattr("cdm_cli.jobs.tune.judge.load_fast_stage", loaded)
    result = run(options(), Told())
    assert [one.fresh_gain for one in result.schedules] == [None] * 2
    assert "how surely is not known" in result.conclusion or "no trial" in result.conclusion


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"verdict": "better"},
            "In 4 steps the schedule is better than the stage's own by 2 ± 0.",
        ),
        (
            {"verdict": "not told apart"},
            "differ by 2 ± 0.5 in FID of 20 images that did not choo",
        ),
        ({"verdict": "worse", "gain": -2.0}, "is worse than the stage's own by 2 ± 0.5 in FID"),
        ({"verdict": None, "uncertainty": None}, "the lowest FID is 1; how surely is not known"),
    ],
)
def test_the_sentence_says_no_more_than_is_certain(changes, says):
    gain = {"steps": 4, "fresh": "images", "num": 20, "score": 2.0, "baseline": 4.0, "gain": 2.0}
    schedule = Searched(
        steps=4, variance="small", alpha_bar=(0.5,), score=1.0, baseline=4.0, trials=3,
        gain=Gain(**(gain | {"uncertainty": 0.5} | changes)),
    )  # fmt: skip
    assert says in conclude(schedule)
    own = schedule.model_copy(update={"score": 4.0, "gain": None})
    assert "no trial had a lower FID" in conclude(own)


def test_other_numbers_of_steps_join_those_that_are_there(tuned, scored):
    result = run(options(steps=(3,)), Told())
    assert [one.steps for one in result.schedules] == [2, 3, 4]
    assert len(scored) == TRIALS + 1


def test_a_search_that_is_not_complete_is_not_in_the_file(workspace, scored, monkeypatch):
    run(options(), Told())
    kept = LOG.read_text().splitlines(keepends=True)
    LOG.write_text("".join([*kept, kept[1].replace('"steps":2', '"steps":4')]))
    result = run(options(), Told())
    assert [one.steps for one in result.schedules] == [2]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sampling": Sampling(seed=1)}, "--seed was 0, is 1"),
        ({"sampling": Sampling(variance="large")}, "--variance was none, is large"),
        ({"num": 25}, "--num was 24, is 25"),
        ({"trials": 4}, "--trials was 3, is 4"),
        ({"judge": replace(JUDGE, features="other")}, "judge_weights was"),
    ],
)
def test_another_search_under_the_same_name_is_refused(tuned, monkeypatch, changes, says):
    write_judge(tuned / "runs/other", seed=1)
    monkeypatch.setattr("cdm_cli.jobs.tune.judge.open_panel", loaded)
    before = OUT.read_bytes(), LOG.read_bytes()
    with pytest.raises(WouldOverwriteError, match=rf"schedule\.json is of another search: {says}"):
        run(options(**changes), Told())
    assert (OUT.read_bytes(), LOG.read_bytes()) == before


def test_a_file_without_its_log_is_left_alone(tuned):
    LOG.unlink()
    with pytest.raises(WouldOverwriteError, match=r"schedule\.json exists, and the log"):
        run(options(), Told())


def test_a_damaged_log_names_its_line(tuned):
    lines = LOG.read_text().splitlines(keepends=True)
    LOG.write_text("".join([lines[0], "nonsense\n", *lines[2:]]))
    with pytest.raises(
        BadInputError, match=r"trials\.jsonl: line 2 is no line of a search"
    ) as error:
        run(options(), Told())
    type_advice(error.value)
    assert LOG.read_text() == lines[0]
    run(options(), Told())
    assert set(LOG.read_text().splitlines(keepends=True)) <= set(lines)


def test_a_second_process_is_told_to_wait(workspace, scored):
    run(options(), Told())
    with hold_file(LOG), pytest.raises(StoppedError, match="being written by process"):
        run(options(steps=(3,)), Told())
    assert len(trials()) == TRIALS + 1


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"model": "steps"}, MismatchError, "trained on the steps of one schedule"),
        ({"model": "hybrid"}, MismatchError, "loss = hybrid"),
        ({"model": "gauss"}, UsageError, r"--s is missing: the stage takes 0\.\.20"),
        ({"model": "gauss", "s": 21}, UsageError, "--s 21"),
        ({"s": 3}, UsageError, "s = 0 only"),
        ({"steps": (2, 51)}, UsageError, r"--steps 51: the stage has 1\.\.50"),
        ({"num": 67}, UsageError, "has 66 images"),
        ({"sampling": Sampling(restart_from=3)}, UsageError, "--restart-from"),
        (
            {"judge": replace(JUDGE, ref=Path("low.h5"))},
            MismatchError,
            "makes 8×8, the store has 4",
        ),
        ({"judge": replace(JUDGE, features="nobody")}, MissingError, "nobody"),
        ({"out": Path("new/schedule.json")}, MissingError, "new does not exist"),
    ],
)
def test_misfits_are_caught_from_headers(workspace, monkeypatch, changes, error, says):
    gauss = ConditioningConfig(resolution=4, z_schedule=COSINE)
    write_stage(workspace / "runs/steps", sr_config(4, 8, variance="small", loss="simple"))
    write_stage(workspace / "runs/hybrid", sr_config(4, 8, time_input="log_snr"))
    write_stage(workspace / "runs/gauss", SR.model_copy(update={"conditioning": gauss}))
    write_store("low.h5", "prepared", {"train": arrays_of(6, [4])})
    monkeypatch.setattr("cdm_cli.jobs.tune.judge.open_panel", loaded)
    with pytest.raises(error, match=says):
        run(options(**changes), Told())
    with pytest.raises(error, match=says):
        plan(options(**changes), Told())
    assert not OUT.exists()
    assert not LOG.exists()


def test_a_stage_that_takes_s_is_searched_at_that_s(workspace):
    gauss = ConditioningConfig(resolution=4, z_schedule=COSINE)
    write_stage(workspace / "runs/gauss", SR.model_copy(update={"conditioning": gauss}))
    run(options(model="gauss", s=5, trials=1), Told())
    assert found()["s"] == 5
    asked = Sampling(schedule=OUT)
    changes = {"model": "gauss", "num": NUM, "compute": CPU, "sampling": asked}
    upsample.run(as_typed(UpsampleOptions, s=5, **changes), Told())
    table = evaluate.run(as_typed(EvalOptions, metrics=("fid",), judge=JUDGE), Told()).table
    score = found()["schedules"][0]["score"]
    assert table.value("fid", "train") == pytest.approx(score, rel=1e-9)


def test_dry_run_tells_what_is_left_and_writes_nothing(tuned):
    before = OUT.read_bytes(), LOG.read_bytes()
    told = Told()
    cost = plan(options(steps=(2, 3), model=None), told)
    assert told.lines == ["--model runs/sr: the only stage that fits"]
    assert cost["searches"] == [{"steps": 2, "trials": 0}, {"steps": 3, "trials": TRIALS + 1}]
    assert cost["trials"] == TRIALS + 1
    assert cost["network_evaluations"] == 3 * NUM * (TRIALS + 1) + 2 * 3 * NUM
    assert cost["flops"] == cost["flops_per_image"] * cost["network_evaluations"]
    assert cost["estimated_seconds"] >= 0
    assert (OUT.read_bytes(), LOG.read_bytes()) == before


def test_two_processes_find_the_same(made, workspace, in_pair):
    two = replace(JUDGE, compute=Compute(device="cpu", batch_size=32, gpus=2))
    result = run(options(trials=1, judge=two), Told())
    alone = [json.loads(line) for line in (made / LOG).read_text().splitlines()[1:]]
    fids = [trial["fid"] for trial in alone if trial["steps"] == 2 and "fid" in trial][:2]
    assert [trial["fid"] for trial in trials()] == pytest.approx(fids, rel=1e-6)
    assert result.schedules[0].fid == pytest.approx(min(fids), rel=1e-6)


def test_a_trial_is_told_only_where_it_is_the_lowest_so_far(workspace, scored):
    told = Told()
    result = run(options(trials=8), told)
    fids = [trial["fid"] for trial in trials()]
    lowest = [n for n, fid in enumerate(fids) if fid < min(fids[:n], default=math.inf)]
    said = [line for line in told.lines if "the lowest so far" in line]
    assert [int(line.split("trial ")[1].split(":")[0]) for line in said] == lowest
    assert len(said) < len(fids) == 9
    short = write_lines(result, whole=False)
    assert short[0] == result.conclusion
    assert short[1].split()[:5] == ["steps", "FID", "the", "stage's", "own"]
    assert short[3] == f"written: {OUT}, {LOG}"
