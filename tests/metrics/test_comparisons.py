"""Mirrors cdm_cli/metrics/comparisons.py: a verdict on each point, and a sentence on all."""

import re

import numpy as np
import pytest

from cdm_cli.metrics.comparisons import (
    are_comparable,
    compare_family,
    compare_rows,
    explain_left_out,
)
from cdm_cli.metrics.table import Convention, MetricRow, MetricTable

CONVENTION = Convention(
    num=20, balance="", extractor="x", extractor_digest="", resize="", resolution=8
)


def family(values, metric="fid", reference="train", groups="mark", noise=0.01):
    """Rows of points 0, 1, …; their leave-out values share most of their noise."""
    rng = np.random.default_rng(3)
    shared = rng.normal(size=10)
    return [
        MetricRow(
            metric=metric, value=value, convention=CONVENTION, reference=reference, groups=groups,
            without=tuple(value + shared + noise * rng.normal(size=10)), extra={"s": s},
        )
        for s, value in enumerate(values)
    ]  # fmt: skip


def name(point):
    return f"s = {point['s']}"


def said(values, **how):
    return compare_rows(family(values, **how)).conclude(name)


def test_every_point_is_compared_with_the_lowest_by_each_metric():
    rows = [*family([3.0, 1.0, 1.001]), *family([3.0, 1.0, 2.0], metric="is", reference="")]
    compared = compare_family(rows)
    assert [(one.metric, one.verdict) for one in compared] == [
        ("fid", "worse"), ("fid", "as good as the best"), ("fid", "as good as the best"),
        ("is", "best"), ("is", "worse"), ("is", "worse"),
    ]  # fmt: skip
    assert compared[0].difference == pytest.approx(2, abs=0.3)
    assert 0 < compared[0].uncertainty < 0.1
    assert compared[4].against == {"s": 0}
    assert compared[4].difference == pytest.approx(-2, abs=0.3)
    assert str(compared[3]) == "best"
    assert str(compared[4]) == f"worse by 2.1 ± {compared[4].uncertainty:.2g}"
    assert (compared[3].difference, compared[3].uncertainty) == (0, 0)


def test_the_sentence_names_the_fewer():
    assert said([1.0, 9.0]).startswith("s = 0 is the best of 2 points by FID against train of 20")
    assert said([1.0, 9.0]).endswith("20 images: s = 1 is worse by 7.9 ± 0.026.")
    assert "of 3 points by FID against train of 20 images: the nearest, s = 2, is worse" in said(
        [1.0, 9.0, 5.0]
    )
    assert "s = 0 is the best of 2 points by IS of 20 images" in said(
        [9.0, 1.0], metric="is", reference=""
    )
    assert said([1.0, 1.0]) == (
        "By FID against train of 20 images nothing tells the 2 points apart."
    )
    assert "2 of 3 points are as good as the best by FID against train of 20 images, all but " in (
        said([1.0, 1.0, 9.0])
    )
    assert said([1.0, 9.0, 9.0, 9.0, 1.0]) == (
        "2 of 5 points are as good as the best by FID against train of 20 images: s = 0 and s = 4."
    )
    many = said([1.0] * 8 + [9.0] * 9)
    assert many.endswith("s = 0, s = 1, s = 2, s = 3, s = 4, s = 5 and 2 more.")


def test_where_points_are_tied_a_note_says_which_differences_are_told():
    (note,) = compare_rows(family([3.0, 1.0, 1.001])).say_what_is_told()
    found = re.fullmatch(
        "FID against train of 20 images a point tells no difference from the lowest "
        r"under about ([\d.]+); of 80, none under ([\d.]+)", note,
    )  # fmt: skip
    assert found
    least, half = map(float, found.groups())
    near = compare_family(family([3.0, 1.0, 1.001]))[2]
    assert near.difference < least < 5 * near.uncertainty
    assert half == pytest.approx(least / 2, rel=0.1)


@pytest.mark.parametrize("values", [[1.0], [1.0, 9.0], [3.0, 1.0, 2.0]])
def test_where_one_point_is_the_best_no_note_says_what_is_told(values):
    assert compare_rows(family(values)).say_what_is_told() == []


def test_what_has_no_leave_out_values_or_others_is_not_compared():
    known, old = family([1.0, 9.0]), family([1.0], groups="")
    assert are_comparable(known)
    for rows in ([*known, *old], [known[0], *family([1.0], groups="others")], known[:1]):
        assert compare_family(rows) == []
    assert explain_left_out([*known, *old])[0].startswith(
        "no verdicts by FID against train: 1 of 3 num"
    )
    assert explain_left_out(known) == explain_left_out(old) == []


def test_a_table_with_comparisons_shows_them_everywhere():
    rows = family([1.0, 9.0])
    table = MetricTable(rows, comparisons=compare_family(rows[:1] + rows[1:]))
    assert table.header()[-1] == "verdict"
    assert table.lines()[0][-1] == "best"
    assert table.lines()[1][-1].startswith("worse by 7.9 ± ")
    assert [one["verdict"] for one in table.to_json()["comparisons"]] == ["best", "worse"]
    header, first, second = table.to_csv().splitlines()
    assert header.endswith("compared_with,difference,difference_uncertainty,verdict")
    assert first.endswith(",0,0.0,0.0,best")
    assert second.endswith(",worse")
    assert "verdict" not in MetricTable(rows).header()
