"""Mirrors cdm_cli/metrics/table.py."""

import csv
import io
import json

import pytest

from cdm_cli.errors import MismatchError
from cdm_cli.metrics.table import Convention, MetricRow, MetricTable


def convention(**changes):
    values = {
        "num": 100,
        "balance": "10 classes × 10",
        "extractor": "inception-clean",
        "extractor_digest": "ab" * 32,
        "resize": "bicubic",
        "resolution": 32,
    }
    return Convention(**(values | changes))


def row(metric="fid", value=1.25, **changes):
    return MetricRow(metric=metric, value=value, convention=convention(), **changes)


def test_a_table_of_one_convention():
    table = MetricTable()
    table.add(row(reference="train", reference_num=500, uncertainty=0.02))
    table.add(row("is", 9.5))
    assert table.header() == ["metric", "value", "±", "against", "num"]
    assert table.lines()[0] == ["fid", "1.25", "0.02", "train (500)", "100"]
    assert table.lines()[1] == ["is", "9.5", "", "", "100"]
    assert table.value("is") == 9.5
    assert table.value("fid", "train") == 1.25
    with pytest.raises(KeyError):
        table.value("fid", "val")


def test_a_number_less_its_bias_stands_beside_it():
    table = MetricTable([row(corrected=1.1234567, without=(1.5, 0.25), groups="ab"), row("is")])
    assert table.header() == ["metric", "value", "±", "corrected", "against", "num"]
    assert [line[3] for line in table.lines()] == ["1.1235", ""]
    record = next(csv.DictReader(io.StringIO(table.to_csv())))
    assert (record["without"], record["without_two"], record["groups"]) == ("1.5 0.25", "", "ab")


def test_another_convention_is_refused_or_told():
    other = MetricRow(metric="fid", value=2.0, convention=convention(num=50))
    table = MetricTable([row()])
    with pytest.raises(MismatchError, match="differ in num"):
        table.add(other)
    mixed = MetricTable(mixed=True)
    mixed.extend([row(), other])
    assert [line[-1] for line in mixed.lines()] == ["A", "B"]
    assert mixed.gather_notes() == [
        "rows of different conventions (num): not comparable as they stand"
    ]


def test_json_and_csv_hold_everything():
    table = MetricTable()
    table.add(row(settings={"k": 3}, extra={"s": 501}, reference="val"))
    table.note("few")
    table.note("few")
    values = json.loads(json.dumps(table.to_json()))
    assert values["notes"] == ["few"]
    assert values["rows"][0]["convention"]["extractor_digest"] == "ab" * 32
    record = next(csv.DictReader(io.StringIO(table.to_csv())))
    assert (record["s"], record["metric"], record["k"], record["resize"]) == (
        "501", "fid", "3", "bicubic",
    )  # fmt: skip
    assert table.header()[0] == "s"
