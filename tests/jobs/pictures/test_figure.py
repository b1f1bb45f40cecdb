"""Mirrors cdm_cli/jobs/pictures/figure.py: what is written below panels can be read."""

from itertools import combinations
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

from cdm_cli.jobs.cas.pictures import draw_plot
from cdm_cli.jobs.pictures.figure import encode_figure, label_steps, make_figure
from cdm_cli.jobs.sweep.race_file import RaceFile, RoundFile, Standing
from cdm_cli.jobs.sweep.race_page import draw_race
from cdm_cli.jobs.tune.result import _draw_curve


@pytest.fixture
def saved(monkeypatch):
    """The figures as they are saved."""
    figures, save = [], Figure.savefig

    def keep(self, *args, **how):
        save(self, *args, **how)
        figures.append(self)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def read_labels(axes):
    """Return what is written below a panel, where it is in view, none of it over another."""
    low, high = sorted(axes.get_xlim())
    texts = [
        text
        for at, text in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        if text.get_text() and low <= at <= high
    ]
    if not any(text.get_rotation() for text in texts):
        boxes = [text.get_window_extent() for text in texts]
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    return [text.get_text() for text in texts]


def lines_of(gains):
    return [
        {"id": y, "class": f"class {y}", "tested": 1000, "top1": 0.9 + gain, "real_top1": 0.9,
         "gain": gain, "gain_error": 0.02}
        for y, gain in enumerate(gains)
    ]  # fmt: skip


@pytest.mark.parametrize("gains", [(-0.16, -0.137, -0.135, -0.109, -0.094, -0.055), (0.0001,)])
def test_gains_of_classes(saved, gains):
    draw_plot(lines_of(gains), [], range(len(gains)))
    left, right = saved[0].axes
    assert len(read_labels(right)) >= 3
    assert read_labels(left) == [f"class {y} ({y})" for y in range(len(gains))]


def test_the_legend_of_a_thousand_classes_covers_none(saved):
    draw_plot(lines_of([-0.9 * y / 1000 for y in range(1000)]), [], range(6))
    axes = saved[0].axes[0]
    legend = axes.get_legend().get_window_extent()
    assert legend.y0 >= axes.bbox.y1
    assert legend.x0 >= 0
    assert legend.x1 <= axes.bbox.x1


def test_schedules_of_many_steps(saved):
    def compared(steps):
        return [SimpleNamespace(name="tuned", fid=100 / steps, error=0.1, num=500)]

    many = [*range(2, 21), 25, 100, 200, 250]
    schedules = [SimpleNamespace(steps=n, compared=compared(n)) for n in many]
    _draw_curve(SimpleNamespace(schedules=schedules))
    (axes,) = saved[0].axes
    read = read_labels(axes)
    assert {"2", "3", "4", "25", "100"} <= {*read}
    assert axes.get_xticks().tolist() == many, "each has its mark"


def test_words_that_are_long_slant_and_a_long_title_is_smaller(saved):
    figure = make_figure(5, 3)
    axes = figure.add_subplot()
    words = [f"step-{n}00000" for n in range(8)]
    axes.set_xticks(range(8), words)
    figure.suptitle("as good as the best, by FID against train: step-100000, in many more words")
    encode_figure(figure)
    assert read_labels(axes) == words
    assert {text.get_rotation() for text in axes.get_xticklabels()} == {30}
    title = figure.texts[0].get_window_extent()
    assert 0 <= title.x0 < title.x1 <= figure.bbox.x1


@pytest.mark.parametrize(
    "steps", [(1, 2, 3), (5,), (100_000, 100_001), (120_000, 160_000), (2_000_000, 4_000_000)]
)
def test_steps_are_whole_numbers(saved, steps):
    figure = make_figure(3, 3)
    axes = figure.add_subplot()
    axes.plot(steps, steps)
    label_steps(axes)
    encode_figure(figure)
    read = read_labels(axes)
    assert len(read) >= min(2, len(steps))
    assert all(label.isdecimal() and int(label) >= 1 for label in read)
    assert max(map(int, read)) > 0.6 * max(steps), "of the steps, not of millions"


def test_a_name_is_not_read_as_a_formula(saved):
    figure, name = make_figure(5, 3), "a$b^{$"
    axes = figure.add_subplot()
    axes.loglog([1, 1e4], [1, 1e4], label=name)
    axes.set(title=name, xlabel=name, ylabel=name)
    axes.legend()
    below = figure.add_subplot(label="below")
    below.set_yticks([0], [name])
    encode_figure(figure)
    assert [text.get_text() for text in below.get_yticklabels()] == [name]
    assert all(label.get_parse_math() for label in axes.get_xticklabels()), "powers are"


def test_what_is_said_of_a_point_of_a_race_is_within_the_picture(saved):
    points = [{"augment": "non-truncated", "s": 251, "steps": n, "sampler": "sde-dpm-solver++"}
              for n in (8, 25, 100)]  # fmt: skip
    standings = [
        Standing(point=point, verdict="beaten", difference=4e4 * n, uncertainty=2e4 * n)
        for n, point in enumerate(points)
    ]
    one = RoundFile(round=1, num=50_000, level=0.01, evaluations=1, against=points[0],
                    points=tuple(standings))  # fmt: skip
    draw_race(RaceFile(
        command="", sweep="", asked="", evaluations=1, reference="train", points=tuple(points),
        costs=(1, 1, 1), num=50_000, step=1, grid=1, rounds=(one,),
    ))  # fmt: skip
    (axes,) = saved[0].axes
    read_labels(axes)
    assert len(axes.texts) == 3
    assert all(text.get_window_extent().x1 < axes.bbox.x1 for text in axes.texts)
