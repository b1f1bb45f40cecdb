"""Mirrors cdm_cli/data/schema.py."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from cdm_cli.data import schema
from cdm_cli.data.schema import CONTENTS, PartSpec
from cdm_cli.data.store import StoreSpec, create, open_store
from tests.data.stores import CLASSES, prepared_spec, samples_spec


def plan_layout(spec):
    return schema.lay_out_store(schema.make_attributes(spec), schema.make_contents(spec))


@pytest.mark.parametrize("spec", [samples_spec(), prepared_spec(), samples_spec(classes=())])
def test_contents_say_all_that_the_layout_needs(spec):
    contents = schema.make_contents(spec)
    again = CONTENTS.validate_json(contents.encode())
    assert again == contents
    assert again.encode() == contents.encode()
    attributes = schema.make_attributes(spec)
    assert schema.lay_out_store(attributes, again) == plan_layout(spec)


def test_the_members_of_a_part_in_the_order_of_their_digest():
    spec = PartSpec(5, {16: 4, 8: 1}, {12: (4, 2, 3), 3: (4, 4, 1)})
    members = schema.list_members(spec)
    assert list(members) == ["ids", "images/8", "images/16", "labels", "z/3", "z/12"]
    assert members["images/16"].shape == (5, 16, 16, 4)
    assert members["z/12"].shape == (5, 4, 2, 3)
    assert schema.count_block_bytes(spec, 2) == 2 * (8 + 64 + 1024 + 8 + 2 * 16 + 2 * 24)


@pytest.mark.parametrize(("num", "size", "blocks"), [(1, 8, 1), (8, 8, 1), (9, 8, 2), (16, 8, 2)])
def test_the_last_block_may_be_short(num, size, blocks):
    assert schema.count_blocks(num, size) == blocks


def test_block_sizes_keep_blocks_small():
    assert schema.fit_block_size({"": PartSpec(10**6, {8: 3})}) == 1024
    large = PartSpec(10**6, {1024: 3})
    size = schema.fit_block_size({"": large})
    assert (
        schema.count_block_bytes(large, size) <= 2**28 < schema.count_block_bytes(large, 2 * size)
    )
    assert schema.fit_block_size({"": PartSpec(9, {4096: 4})}, 1) == 1


@pytest.mark.parametrize(
    "names", [CLASSES, ("",), ("a", "", "bb"), ("a\0b",), tuple("abc" * 9), ("é" * 2048,)]
)
def test_class_names_come_back(names):
    packed, width = schema.pack_classes(names)
    assert len(packed) == width * len(names)
    assert schema.unpack_classes(packed, width) == tuple(names)


@pytest.mark.parametrize("name", ["é" * 2049, "a\0", "\ud800"])
def test_class_names_that_cannot_be_stored(name):
    with pytest.raises(ValueError, match=r"class name|surrogates"):
        schema.pack_classes([name])


def test_long_provenance_goes_on_in_more_attributes(tmp_path):
    provenance = {"command": "cdm", "long": "x" * 200_000}
    spec = samples_spec(provenance=provenance)
    assert [n for n in schema.make_attributes(spec) if n.startswith("prov")] == [
        "provenance", "provenance_2", "provenance_3", "provenance_4",
    ]  # fmt: skip
    create(tmp_path / "a.h5", spec).close()
    with open_store(tmp_path / "a.h5") as store:
        assert store.provenance == provenance


def test_twelve_attributes_of_provenance_keep_their_order():
    spec = samples_spec(provenance={"long": "".join(map(str, range(130_000)))})
    attributes = schema.make_attributes(spec)
    assert "provenance_11" in attributes
    assert json.loads(schema.join_provenance(attributes)) == spec.provenance


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"parts": {"val": PartSpec(1, {8: 3})}}, "parts"),
        ({"parts": {"": PartSpec(1, {8: 3}), "train": PartSpec(1, {8: 3})}}, "parts"),
        ({"parts": {"": PartSpec(1, {})}}, "without images"),
        ({"parts": {"": PartSpec(2**20, {1024: 4})}, "block_size": 1024}, "a block has"),
        ({"parts": {"": PartSpec(2**30, {8: 1})}, "block_size": 8}, "blocks"),
        ({"classes": ["x" * 4096] * 8193}, "class names"),
    ],
)
def test_stores_that_no_reader_would_open_are_not_made(tmp_path, changes, says):
    with pytest.raises(ValueError, match=says):
        create(tmp_path / "a.h5", samples_spec(**changes))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"num": 0}, {"num": 2**36 + 1}, {"resolutions": {8: 5}}, {"resolutions": {8: 0}},
        {"resolutions": {0: 3}}, {"resolutions": {4097: 3}}, {"z": {-1: (4, 4, 3)}},
        {"z": {3: (4, 4)}}, {"more": 1},
    ],
)  # fmt: skip
def test_parts_that_cannot_be(wrong):
    values = {"num": 4, "resolutions": {8: 3}} | wrong
    with pytest.raises(ValidationError):
        PartSpec(**values)


def test_numbers_that_json_does_not_know_are_no_provenance():
    spec = StoreSpec("samples", samples_spec().parts, CLASSES, {"x": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        schema.make_attributes(spec)


def test_members_lie_where_the_layout_says(tmp_path):
    """Row r of a member starts at its offset + r * row_bytes: what blocks and maps rely on."""
    spec = samples_spec()
    layout = plan_layout(spec)
    with create(tmp_path / "a.h5", spec) as store:
        part = store.parts[""]
        images = np.arange(8 * 192, dtype=np.uint8).reshape(8, 8, 8, 3)
        z = np.zeros((8, 4, 4, 3), np.float16)
        rows = np.arange(8, 16)
        part.write_block(1, {"ids": rows, "labels": rows % 4, "images/8": images,
                             "z/3": z, "z/12": z})  # fmt: skip
    raw = (tmp_path / "a.h5").read_bytes()
    place = layout.offsets["images/8"] + 8 * 192
    assert raw[place : place + images.size] == images.tobytes()
    assert len(raw) == layout.size
