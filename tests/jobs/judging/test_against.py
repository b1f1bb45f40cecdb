"""Mirrors cdm_cli/jobs/judging/against.py: two stores that differ, and two that do not.

Here too: check.py, result.py.
"""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from cdm_cli.commands._render import write_lines
from cdm_cli.errors import MismatchError, MissingError, UsageError
from cdm_cli.jobs.judging import against
from cdm_cli.jobs.judging.evaluate import run
from tests.jobs.judging.making import SAMPLES, counted, options, write_workspace
from tests.tiny import Told, arrays_of, write_store

UNPAIRED = "unpaired: "


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    """samples.h5 of seed 0 in the way, and others of the same ids: darker, and hardly changed."""
    monkeypatch.chdir(tmp_path)
    write_workspace(tmp_path)
    rng = np.random.default_rng(5)
    flat = {name: array for name, array in SAMPLES.items() if "images" not in name}
    full = SAMPLES["images/16"].astype(int)
    for name, images in (("dark", full // 4), ("close", full + rng.integers(-1, 2, full.shape))):
        images = np.clip(images, 0, 255).astype(np.uint8)
        made(f"{name}.h5", 0, flat | {"images/16": images, "images/8": images[:, ::2, ::2]})
    made("samples.h5", 0, SAMPLES)
    made("again.h5", 1, SAMPLES)
    made("others.h5", 0, SAMPLES | {"ids": SAMPLES["ids"] + 1000})
    return tmp_path


def made(name, seed, arrays):
    Path(name).unlink(missing_ok=True)
    write_store(Path(name), "samples", {"": arrays}, provenance={"identity": {"seed": seed}})


def compared(other, *metrics, **changes):
    return run(options(*metrics, against=Path(other), **changes), Told())


def test_what_differs_is_told_pair_by_pair():
    result = compared("dark.h5", "fid", "is", "kid", "accuracy")
    shown = result.model_dump()
    assert [one["metric"] for one in shown["comparisons"]] == [
        "fid", "fid", "is", "kid", "kid", "accuracy",
    ]  # fmt: skip
    one = shown["comparisons"][0]
    assert (one["point"], one["against"]) == ({"store": "samples.h5"}, {"store": "dark.h5"})
    assert one["verdict"] == "better"
    assert one["difference"] < -4 * one["uncertainty"]
    assert shown["conclusion"].startswith("samples.h5 is better than dark.h5 by ")
    assert not any(UNPAIRED in note for note in shown["notes"])
    mine, theirs = (
        row for row in result.table.rows if (row.metric, row.reference) == ("fid", "train")
    )
    gap = mine.estimate.minus(theirs.estimate)
    assert (one["difference"], one["uncertainty"]) == (gap.corrected, gap.error)
    turned = run(options("fid", stores=(Path("dark.h5"),), against=Path("samples.h5")), Told())
    assert turned.table.comparisons[0].verdict == "worse"
    assert turned.model_dump()["conclusion"].startswith("dark.h5 is worse than samples.h5 by ")
    assert "samples.h5 is better" in "\n".join(write_lines(result))


def test_the_answer_is_said_first_then_what_it_means_and_digests_on_demand():
    result = compared("dark.h5", "fid")
    digest = result.model_dump()["convention"]["extractor_digest"]
    told, header, *rows = write_lines(result, whole=False)
    assert told.startswith("samples.h5 is better than dark.h5 by ")
    assert header.split() == ["store", "metric", "value", "±", "corrected", "against", "verdict"]
    assert rows[0].startswith("samples.h5  fid ")
    said = "\n".join(rows)
    assert said.index("train (") < said.index("±: one standard error") < said.index("fid: how far")
    assert "seen by classifier-judge" in said
    assert digest not in said
    assert digest in "\n".join(write_lines(result))
    one = run(options("fid"), Told())
    assert write_lines(one, whole=False)[0].split() == [
        "metric",
        "value",
        "±",
        "corrected",
        "against",
    ]


def several(*names, **changes):
    return run(options("fid", stores=tuple(map(Path, names)), **changes), Told())


def test_several_stores_are_compared_with_one_each_pair_by_pair():
    result = several("samples.h5", "close.h5", against=Path("dark.h5"))
    shown = result.model_dump()
    assert shown["stores"] == ["samples.h5", "close.h5"]
    assert [row["store"] for row in shown["metrics"][::3]] == ["samples.h5", "close.h5", "dark.h5"]
    made = {one["point"]["store"]: one for one in shown["comparisons"][::2]}
    assert {one["verdict"] for one in made.values()} == {"better"}
    for name, one in made.items():
        alone = several(name, against=Path("dark.h5")).table.comparisons[0]
        assert (one["difference"], one["uncertainty"]) == (alone.difference, alone.uncertainty)
    first, second, *_ = write_lines(result, whole=False)
    assert first.startswith("samples.h5 is better than dark.h5 by ")
    assert second.startswith("close.h5 is better than dark.h5 by ")
    said = "\n".join(write_lines(result, whole=False))
    assert "of each of samples.h5, close.h5 and dark.h5" in said
    assert "verdicts are on 2 stores at once" in said


def test_the_more_stores_are_compared_the_more_a_verdict_asks_for(monkeypatch):
    levels, real = [], against.tell_apart

    def verdict(one, other, *, highest, level):
        levels.append(level)
        return real(one, other, highest=highest, level=level)

    monkeypatch.setattr(against, "tell_apart", verdict)
    compared("dark.h5")
    several("samples.h5", "close.h5", "others.h5", "again.h5", against=Path("dark.h5"))
    assert levels == [0.05] * 2 + [0.0125] * 8


def test_each_store_is_said_to_have_as_many_images_as_it_has():
    made("few.h5", 0, {name: array[:50] for name, array in SAMPLES.items()})
    result = several("samples.h5", "few.h5", against=Path("dark.h5"))
    said = "\n".join(write_lines(result, whole=False))
    assert "of 75 images of samples.h5 and dark.h5 (" in said
    assert "of 50 images of few.h5 (" in said
    shown = result.model_dump()["metrics"]
    nums = {row["store"]: row["convention"]["num"] for row in shown}
    assert nums == {"samples.h5": 75, "few.h5": 50, "dark.h5": 75}


def test_a_store_is_judged_once_and_not_compared_with_itself(monkeypatch):
    once = several("samples.h5", against=Path("dark.h5")).model_dump()
    seen = counted(monkeypatch)
    names = ("./samples.h5", "dark.h5", "samples.h5")
    assert several(*names, against=Path("dark.h5")).model_dump() == once
    assert sum(seen) == 2 * 75
    with pytest.raises(UsageError, match=r"--against dark\.h5: it is the store that is judged"):
        options("fid", stores=(Path("dark.h5"),), against=Path("dark.h5"))


def test_more_stores_than_the_groups_of_images_can_tell_apart_are_said_to_be():
    """The signs of ten groups give 2 / 1024 at best, which is 5 % / 25."""
    table = compared("dark.h5").table
    for num, told in ((25, False), (26, True)):
        table.notes.clear()
        against.compare_stores(table, [Path("samples.h5")] * num, Path("dark.h5"))
        assert table.comparisons[-1].verdict == ("not told apart" if told else "better")
        assert any("26 stores ask for a level of 0.0019" in note for note in table.notes) == told


def test_several_stores_without_another_are_one_table():
    result = several("samples.h5", "dark.h5")
    alone = [several(name).table.value("fid", "train") for name in ("samples.h5", "dark.h5")]
    rows = [row for row in result.table.rows if (row.metric, row.reference) == ("fid", "train")]
    assert [row.value for row in rows] == alone
    assert [row.extra for row in rows] == [{"store": "samples.h5"}, {"store": "dark.h5"}]
    assert result.table.comparisons == []
    assert "conclusion" not in result.model_dump()
    made("small.h5", 0, arrays_of(75, (4,)))
    with pytest.raises(MismatchError, match=r"^small\.h5 has images of 4 pixels, samples\.h5 is"):
        several("samples.h5", "small.h5")


def test_nearest_images_are_those_of_the_first_store():
    result = run(options("fid", "nn", stores=(Path("samples.h5"), Path("dark.h5"))), Told())
    stores = {row.extra["store"] for row in result.table.rows if row.metric.startswith("nn")}
    assert stores == {"samples.h5"}
    assert any("nearest images are those of samples.h5 alone" in n for n in result.table.notes)


def test_each_store_has_the_numbers_that_it_has_alone():
    alone = run(options("fid", stores=(Path("dark.h5"),)), Told()).table
    both = compared("dark.h5").table
    assert [row.value for row in both.rows if row.extra == {"store": "dark.h5"}] == [
        row.value for row in alone.rows
    ]


def test_two_that_hardly_differ_are_not_told_apart():
    result = compared("close.h5").model_dump()
    assert result["comparisons"][0]["verdict"] == "not told apart"
    assert result["conclusion"].startswith("FID against train of 75 images does not tell samples")


@pytest.mark.parametrize(("other", "why"), [("again", "share no seed"), ("others", "ids differ")])
def test_what_shares_no_noise_is_compared_unpaired_and_says_so(other, why):
    table = compared(f"{other}.h5").table
    assert any(UNPAIRED in note and why in note for note in table.notes)
    (mine, theirs) = (row for row in table.rows if row.reference == "train")
    expected = np.hypot(mine.uncertainty, theirs.uncertainty)
    assert table.comparisons[0].uncertainty == pytest.approx(expected)
    assert table.comparisons[0].verdict == "not told apart"


def test_a_table_of_both_is_written():
    compared("dark.h5", out=Path("both.csv"))
    compared("dark.h5", out=Path("both.csv"))  # it is ours to replace
    with open("both.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["store"] for row in rows] == ["samples.h5"] * 3 + ["dark.h5"] * 3
    assert [row["verdict"] for row in rows] == ["better", "better"] + [""] * 4
    compared("dark.h5", out=Path("both.json"))
    assert json.loads(Path("both.json").read_text())["comparisons"][0]["verdict"] == "better"


def test_another_resolution_is_refused_before_anything_is_judged(monkeypatch):
    seen = counted(monkeypatch)
    made("small.h5", 0, arrays_of(75, (4,)))
    with pytest.raises(MismatchError, match=r"--against small\.h5 has images of 4 pixels, sampl"):
        compared("small.h5")
    assert not seen


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UsageError, match="--against: prdc, nn cannot tell two stores apart"):
        options("prdc", "nn", against=Path("dark.h5"))
    with pytest.raises(MissingError, match=r"none\.h5"):
        compared("none.h5")


@pytest.mark.parametrize("identity", [5, {"seed": "ten"}, {"seed": None}])
def test_a_store_of_a_strange_origin_shares_no_seed(identity):
    """What others wrote into a store is no reason to end in a traceback."""
    Path("again.h5").unlink()
    made_by_others = {"identity": identity}
    write_store(Path("again.h5"), "samples", {"": SAMPLES}, provenance=made_by_others)
    result = compared("again.h5", "fid")
    assert any("they share no seed" in note for note in result.model_dump()["notes"])
