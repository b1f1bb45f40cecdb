"""Mirrors plan.py, point.py, front.py and plot.py of cdm_cli/jobs/sweep: more axes than s.

Here too: choice.py, table.py, times.py.
"""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from cdm_cli.cascade.snapshot import save_best
from cdm_cli.data.store import open_store
from cdm_cli.errors import MissingError, UsageError, WouldOverwriteError
from cdm_cli.jobs.runtime.identity import list_chain_fields
from cdm_cli.jobs.sampling import upsample
from cdm_cli.jobs.sampling.schedule_file import choose_chain
from cdm_cli.jobs.sweep import plot
from cdm_cli.jobs.sweep.choice import Judged, choose, explain_verdicts, name_point
from cdm_cli.jobs.sweep.front import place_points, say_front
from cdm_cli.jobs.sweep.plot import Along, write_plot
from cdm_cli.jobs.sweep.point import DECIDED, NAME
from cdm_cli.jobs.sweep.sweep import plan, run
from cdm_cli.metrics.table import Convention, MetricRow
from cdm_cli.options.sampling import Sampling, UpsampleOptions
from cdm_cli.options.sweeping import AXES, SweepOptions, SweepSOptions
from tests.asking import as_typed
from tests.jobs.sweep.sweeping import CPU, JUDGE, files, write_workspace
from tests.tiny import Told, contents, in_new_folder, net_of, sr_config

SR = sr_config(4, 8)
OUT = Path("grid")
POINTS = [
    f"{kind}-sampler-{sampler}-steps-{steps}"
    for kind in ("none-s0000", "non-truncated-s0005")
    for sampler in ("ancestral", "ddim")
    for steps in (1, 3)
]
SMALL = {"augments": ("non-truncated",), "num": 20, "judge": JUDGE, "out": OUT}


def grid(*axes, **changes):
    axes = axes or ("s=0,5", "steps=1,3", "sampler=ancestral,ddim")
    return as_typed(SweepOptions, **(SMALL | {"axes": axes} | changes))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace, with other best weights, and a grid in it that nothing disturbed."""
    with in_new_folder(tmp_path_factory) as home:
        write_workspace(home, SR)
        save_best(home / "runs/sr", net_of(SR, seed=7).state_dict(), 1, "{}")
        run(grid(), Told())
    return home


@pytest.fixture
def home(made, tmp_path, monkeypatch):
    """The same workspace and grid."""
    there = tmp_path / "home"
    shutil.copytree(made, there)
    monkeypatch.chdir(there)
    return there


def told(name="sweep"):
    return json.loads((OUT / f"{name}.json").read_text())


def test_the_legend_of_many_lines_covers_none(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plot, "encode_figure", lambda figure: drawn.append(figure) or b"")
    samplers = ("ddim", "ancestral", "dpm-solver++", "sde-dpm-solver++")
    many = [
        judged(float(s + place), steps, s=s, steps=steps, sampler=sampler, variance=variance)
        for s in (1, 251)
        for steps in (8, 25, 100)
        for place, sampler in enumerate(samplers)
        for variance in ("small", "large")
    ]
    plot.write_plot(tmp_path / "plot.png", many, choose(many))
    (figure,) = drawn
    figure.draw_without_rendering()
    (legend,) = figure.legends
    below = legend.get_window_extent()
    assert len(legend.get_texts()) == 1 + 24 + 2  # the ring, the lines, the front and the beaten
    assert 0 <= below.x0 < below.x1 <= figure.bbox.x1
    assert below.y0 >= 0
    assert all(axes.get_tightbbox().y0 >= below.y1 for axes in figure.axes)
    assert not any(axes.get_legend() for axes in figure.axes)
    assert figure.axes[0].get_ylabel() == "FID (x)"


def test_the_points_are_all_combinations(home):
    assert sorted(path.stem for path in OUT.glob("*.h5")) == sorted(POINTS)
    assert all(NAME.fullmatch(f"{name}.json") for name in POINTS)
    extra = told("none-s0000-sampler-ddim-steps-1")["rows"][0]["extra"]
    assert extra == {"augment": "none", "s": 0, "sampler": "ddim", "steps": 1}
    with (OUT / "sweep.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0])[:4] == ["augment", "s", "sampler", "steps"]
    assert told()["command"].startswith(
        "cdm sweep lowres.h5 --axis s=0,5 --axis steps=1,3 --axis sampler=ancestral,ddim"
    )
    with Image.open(OUT / "sweep.png") as picture:
        assert picture.width == 3 * 720  # FID, IS, the front


def test_a_point_is_what_upsample_gives(home):
    sampling = Sampling(sampler="ddim", steps=1)
    upsample.run(as_typed(UpsampleOptions, s=5, num=20, sampling=sampling, compute=CPU), Told())
    assert contents("samples.h5") == contents(OUT / "non-truncated-s0005-sampler-ddim-steps-1.h5")


def test_weights_are_an_axis_of_one_loading(home, monkeypatch):
    loads, load = [], upsample.make_stage_ready
    monkeypatch.setattr(
        "cdm_cli.jobs.sweep.shared.make_stage_ready", lambda *asked: loads.append(1) or load(*asked)
    )
    asked = grid("s=5", "weights=best,ema", out=Path("weights"))
    run(asked, Told())
    assert loads == [1]
    for weights in ("best", "ema"):
        out = Path(f"{weights}.h5")
        sampling = Sampling(weights=weights)
        single = as_typed(UpsampleOptions, s=5, num=20, sampling=sampling, compute=CPU, out=out)
        upsample.run(single, Told())
        point = Path(f"weights/non-truncated-s0005-weights-{weights}")
        assert contents(out) == contents(point.with_suffix(".h5"))
        with open_store(out) as alone, open_store(point.with_suffix(".h5")) as store:
            assert store.provenance["identity"] == alone.provenance["identity"]
    assert contents("best.h5") != contents("ema.h5")
    assert "weights" not in json.loads(Path("weights/sweep.json").read_text())["identity"]


def test_the_same_command_does_nothing_and_other_values_join(home, monkeypatch):
    before = files(OUT)
    run(grid("sampler=ancestral,ddim", "steps=3,1", "s=5,0"), Told())
    after = files(OUT)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"sweep.json", "report.html"}  # `command`
    result = run(grid("s=5", "sampler=ddim", "steps=2"), Told())
    assert len(result.table.lines()) == len(POINTS) + 1
    assert [line[3] for line in result.table.lines()][-3:] == ["1", "2", "3"]


def test_other_axes_are_another_sweep(home):
    with pytest.raises(WouldOverwriteError, match="is of another sweep: --axis was"):
        run(grid("s=5,0", "steps=1,3"), Told())
    with pytest.raises(WouldOverwriteError, match=r"--clip was true, is false"):
        run(grid(sampling=Sampling(clip=False)), Told())
    point = OUT / "none-s0000-sampler-ddim-steps-1.json"
    other = json.loads(point.read_text())
    other["decided"]["times"] = [5]
    point.write_text(json.dumps(other))
    with pytest.raises(WouldOverwriteError, match=r"another sampling: times\[0\] was 5"):
        plan(grid(), Told())


def test_one_axis_of_s_is_sweep_s(home):
    short = as_typed(SweepSOptions, **(SMALL | {"s": (0, 5), "out": Path("short")}))
    run(short, Told())
    run(grid("s=0,5", out=Path("long")), Told())
    short, long = files(Path("short")), files(Path("long"))
    changed = {name for name in short if short[name] != long[name]}
    assert changed == {"sweep.json", "report.html"}  # `command`
    run(grid("s=0,5,6", out=Path("short")), Told())


def test_dry_run_tells_the_cost_of_all_chains(home):
    cost = plan(grid("s=0,5", "steps=1,2,3", "sampler=ancestral,ddim"), Told())
    assert cost["samples"] == cost["images_judged"] == 4 * 20
    assert cost["network_evaluations"] == 4 * 20 * 2
    assert not {"steps", "sampler"} & set(cost)
    assert cost["points"][0] == {
        "augment": "none", "s": 0, "sampler": "ancestral", "steps": 1, "samples": 20,
        "judged": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("axes", "error", "says"),
    [
        (("s=5,21",), UsageError, "--s 21: .* trained on s = 0..20 .*Next: --axis s=5,20$"),
        (("s=5", "steps=2,21"), UsageError, r"--steps 21: the stage has times 1\.\.20"),
        (("s=5", "restart-from=none,21"), UsageError, "--restart-from 21"),
        (("steps=2,3",), UsageError, "--s is missing: the stage takes 0..20"),
        (("s=5", "sampler=ddim,ancestral", "variance=small"), UsageError, "ddim leaves no choice"),
        (("s=5", "weights=ema,bset"), UsageError, r"--weights bset: .*did you mean best\?"),
        (("s=5", "weights=ema,step-00000009"), MissingError, "step-00000009"),
        (("s=5", "schedule=none,none.json"), MissingError, r"none\.json does not exist"),
        (("s=5", "steps=2"), UsageError, r"s = 5 \(steps = 2\) is a single point"),
    ],
)
def test_what_cannot_be_is_caught_from_headers(home, monkeypatch, axes, error, says):
    def loaded(*_, **__):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("cdm_cli.jobs.sampling.ready.load_fast_stage", loaded)
    monkeypatch.setattr("cdm_cli.jobs.sweep.shared.open_panel", loaded)
    with pytest.raises(error, match=says):
        run(grid(*axes, out=Path("new")), Told())
    assert not Path("new").exists()


def test_real_images_of_both_splits_are_families_of_their_own(home):
    asked = grid("s=5", "steps=1,3", ground_truth_of=("train", "val"), out=Path("real"))
    result = run(asked, Told())
    kinds = [line[0] for line in result.table.lines()]
    assert kinds == [*["non-truncated"] * 2, *["ground-truth"] * 2, *["ground-truth-train"] * 2]
    assert " 2 points" in result.conclusion
    assert len(result.pareto) == 2
    lines = [line for line in result.table.gather_notes() if "among themselves" in line]
    assert lines == [f"{kind} points are compared among themselves"
                     for kind in ("ground-truth", "ground-truth-train")]  # fmt: skip
    alone = as_typed(
        UpsampleOptions, lowres="data.h5", split="train", num=20, s=5, compute=CPU,
        sampling=Sampling(steps=1),
    )  # fmt: skip
    upsample.run(alone, Told())
    assert contents("samples.h5") == contents("real/ground-truth-train-s0005-steps-1.h5")


OTHERS = {
    "sampler": "ddim", "steps": 2, "variance": "large", "restart_from": 7, "clip": False,
}  # fmt: skip


@pytest.mark.parametrize("axis", sorted({*AXES} - {"s", "schedule", "weights"}))
def test_an_axis_decides_no_field_that_the_sweep_records_for_all(home, axis):
    """Else points of one directory would have different identities."""
    with open_store("lowres.h5") as store:
        header = upsample.plan_work(as_typed(UpsampleOptions, s=5), store).header
    chains = [
        choose_chain(header, sampling)
        for sampling in (Sampling(), Sampling(**{axis: OTHERS[axis]}))
    ]
    one, other = (list_chain_fields(header.config, chain, 0) for chain in chains)
    changed = {name for name in one if one[name] != other[name]}
    assert changed
    assert changed <= set(DECIDED[axis])


def judged(fid, evaluations, wobble=0.01, seed=0, **labels):
    convention = Convention(
        num=20, balance="", extractor="x", extractor_digest="", resize="", resolution=8
    )
    labels = {"augment": "non-truncated", "s": 5} | labels
    without = tuple(fid + wobble * np.random.default_rng(seed).normal(size=10))
    row = MetricRow(
        metric="fid", value=fid, uncertainty=1.0, reference="train", convention=convention,
        extra=labels, without=without, groups="mark",
    )  # fmt: skip
    axes = {name: value for name, value in labels.items() if name not in ("augment", "s")}
    return Judged(
        sweep="", augment=labels["augment"], s=labels["s"], axes=axes, evaluations=evaluations,
        samples="", parents=(), rows=(row,), notes=(),
    )  # fmt: skip


@pytest.fixture
def known():
    """Points of known numbers: two are beaten by a cheaper or equal one."""
    return [
        judged(9.0, 8, steps=8, sampler="ddim", seed=1),
        judged(12.0, 8, steps=8, sampler="ancestral", seed=2),
        judged(5.0, 25, steps=25, sampler="ddim", seed=3),
        judged(10.0, 25, steps=25, sampler="ancestral", seed=4),
        judged(2.0, 100, steps=100, sampler="ancestral", seed=5),
    ]


def test_the_front_is_said_in_words_and_numbers(known):
    placed = place_points(known)
    assert [one.on_front for one in placed] == [True, False, True, False, True]
    assert [one.evaluations for one in placed] == [8, 8, 25, 25, 100]
    assert placed[3].against == known[2].labels
    assert placed[3].difference == pytest.approx(5.0, abs=0.5)
    assert say_front(placed) == (
        "3 of 5 points are on the front of evaluations and FID against train: "
        "8 for non-truncated s = 5 (steps = 8, ddim), FID 9; "
        "25 for non-truncated s = 5 (steps = 25, ddim), FID 5; "
        "100 for non-truncated s = 5 (steps = 100, ancestral), FID 2."
    )
    assert not explain_verdicts(known)


def test_there_is_no_front_where_all_cost_the_same_or_it_is_not_known(known):
    assert place_points(known[:2]) == ()
    assert say_front(()) == ""
    old = [point.model_copy(update={"evaluations": None}) for point in known]
    assert place_points(old) == ()


def test_of_equals_the_cheapest_is_chosen(known):
    same = [judged(2.0, 250, steps=250, sampler="ddim"), known[-1]]
    assert choose(same).axes == {"steps": 100, "sampler": "ancestral"}
    assert name_point(same[0].labels) == "non-truncated s = 5 (steps = 250, ddim)"


def test_the_picture_goes_along_one_axis(known, tmp_path, monkeypatch):
    assert Along.of(known) == Along("steps")
    assert Along.of(known[:2]) == Along("sampler", ("ddim", "ancestral"))
    assert Along.of(known[:1]).axis == "s"
    assert Along.of([known[0], judged(1.0, 8, s=7, steps=8, sampler="ddim")]).axis == "s"
    drawn, draw = [], Axes.errorbar

    def errorbar(self, x, y, **how):
        drawn.append((list(x), list(y), how["label"]))
        return draw(self, x, y, **how)

    monkeypatch.setattr(Axes, "errorbar", errorbar)
    write_plot(tmp_path / "plot.png", known, choose(known))
    assert drawn == [
        ([8, 25], [9.0, 5.0], "non-truncated, ddim vs train"),
        ([8, 25, 100], [12.0, 10.0, 2.0], "non-truncated, ancestral vs train"),
        ([8, 25, 100], [9.0, 5.0, 2.0], "on the front"),
        ([8, 25], [12.0, 10.0], "beaten"),
    ]
