"""Our own formats, changed at random: refused, or what was written; never anything else.

Whatever is raised is a CdmError with the code of a refusal; any other exception is a bug.
"""

import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdm_cli.cascade.checkpoint import load_stage
from cdm_cli.cascade.head import read_metadata
from cdm_cli.cascade.snapshot import Snapshot, load_checkpoint, save_checkpoint
from cdm_cli.cascade.weights import read_weights
from cdm_cli.data import schema
from cdm_cli.data.store import open_store
from cdm_cli.errors import CdmError
from cdm_cli.jobs.checking import inspect
from cdm_cli.options.workspace import InspectOptions
from tests.asking import as_typed
from tests.data.stores import arrays_of, samples_spec
from tests.hostile.make import good_stage, good_store, sealed
from tests.tiny import Told, pack

REFUSED = {2, 65, 66, 78}
FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
NUMBERS = st.integers() | st.integers(-(2**70), 2**70) | st.floats()
KNOWN = st.sampled_from([0, 1, -1, 2, 8, 2**31, 2**63, 1e308, "base", "list"])
TEXT = st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT | KNOWN,
    lambda some: st.lists(some, max_size=4) | st.dictionaries(TEXT, some, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("mutations")
    good_store(home / "good.h5")
    good_stage(home / "base")
    return home


def refused(call, *args, **how):
    """Return what a function returns, or None where it refuses; anything else is raised."""
    try:
        return call(*args, **how)
    except CdmError as raised:
        error = raised
    assert error.exit_code in REFUSED, error
    assert str(error).isprintable()
    return None


@st.composite
def changes(draw, data):
    """Bytes, most of which are those of data: some changed, some cut off or put in."""
    changed = bytearray(data)
    early = st.integers(0, min(len(data), 2500) - 1)
    for place in draw(st.lists(early | st.integers(0, len(data) - 1), min_size=1, max_size=4)):
        changed[place] = draw(st.integers(0, 255))
    kind = draw(st.sampled_from(["keep", "keep", "keep", "cut", "longer", "insert", "remove"]))
    place = draw(st.integers(0, len(data) - 1))
    if kind == "cut":
        return bytes(changed[:place])
    if kind == "longer":
        return bytes(changed) + draw(st.binary(max_size=10))
    if kind == "insert":
        return bytes(changed[:place]) + draw(st.binary(max_size=10)) + bytes(changed[place:])
    return bytes(changed[:place] + changed[place + 1 :] if kind == "remove" else changed)


@settings(FEW, max_examples=120)
@given(data=st.data())
def test_a_store_of_changed_bytes_is_refused_or_gives_what_was_written(home, data):
    path = home / "changed.h5"
    path.write_bytes(data.draw(changes((home / "good.h5").read_bytes())))
    store = refused(open_store, path)
    if store is None:
        return
    with store:
        assert store.classes == list(samples_spec().classes)
        assert store.provenance == samples_spec().provenance
        part = store.parts[""]
        for b in range(part.num_blocks):
            block = refused(part.read_checked, b)
            for name, array in (block or {}).items():
                np.testing.assert_array_equal(array, arrays_of(part, b)[name])


def places(value, path=()):
    """Yield the place of every value inside a JSON value."""
    yield path
    inside = value.items() if isinstance(value, dict) else ()
    inside = enumerate(value) if isinstance(value, list) else inside
    for key, item in inside:
        yield from places(item, (*path, key))


@st.composite
def altered(draw, value):
    """A JSON value in which one or two places hold something else, or are gone."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from([place for place in places(value) if place] or [("x",)]))
        target = value
        for key in path[:-1]:
            target = target[key]
        if draw(st.booleans()) and isinstance(target, dict) and path[-1] in target:
            del target[path[-1]]
        else:
            target[path[-1]] = draw(JSON)
    return value


@FEW
@given(data=st.data())
def test_stores_that_say_other_things_under_the_right_seals(home, data):
    good = json.loads(schema.make_contents(samples_spec()).encode())
    told = {
        "contents": json.dumps(data.draw(altered(good))).encode(),
        "provenance": json.dumps(data.draw(JSON)).encode(),
        "kind": data.draw(st.sampled_from([b"samples", b"prepared", b"", b"x"])),
    }
    kept = data.draw(st.sets(st.sampled_from(sorted(told)), max_size=2))
    path = home / "sealed.h5"
    sealed({name: value for name, value in told.items() if name not in kept})(path, home)
    if path.stat().st_size > 2**40:
        path.unlink()
        return
    store = refused(open_store, path)
    if store is not None:
        with store:
            for part in store.parts.values():
                assert len(part.labels) == part.num
                refused(part.read_checked, 0)
    refused(inspect.run, as_typed(InspectOptions, path=path), Told())


@settings(FEW, max_examples=80)
@given(data=st.data())
def test_a_stage_file_that_says_other_things(home, data):
    """Whatever can still be read as a stage, fits its weights or is refused for it."""
    good = json.loads((home / "base/stage.json").read_text())
    told = data.draw(altered(good))
    directory = home / "altered"
    if not directory.exists():
        good_stage(directory)
    (directory / "stage.json").write_text(json.dumps(told))
    refused(load_stage, directory, Path("runs"))
    refused(inspect.run, as_typed(InspectOptions, path=directory), Told())


TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(3)}


@settings(FEW, max_examples=80)
@given(data=st.data())
def test_headers_of_weights_that_say_other_things(home, data):
    """The digest covers the header, so any change that remains a header is refused as well."""
    packed = pack(TENSORS, {"step": "7"})
    size = int.from_bytes(packed[:8], "little")
    good = json.loads(packed[8 : 8 + size])
    told = data.draw(altered(good))
    text = json.dumps(told).encode()
    path = home / "w.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + packed[8 + size :])
    found = refused(read_weights, path, TENSORS)
    assert found is None or told == good
    refused(read_metadata, path)


@settings(FEW, max_examples=80)
@given(data=st.data())
def test_weights_of_changed_bytes(home, data):
    path, packed = home / "w.safetensors", pack(TENSORS, {"step": "7"})
    changed = data.draw(changes(packed))
    path.write_bytes(changed)
    found = refused(read_weights, path, TENSORS)
    assert found is None or changed == packed


@FEW
@given(data=st.data())
def test_checkpoints_whose_small_files_say_other_things(home, data):
    directory = home / "run"
    like = Snapshot(3, TENSORS, TENSORS, TENSORS, {"k": 1})
    path = save_checkpoint(directory, like, keep=1)
    name = data.draw(st.sampled_from(["manifest.json", "state.json"]))
    good = json.loads((path / name).read_text())
    (path / name).write_text(json.dumps(data.draw(altered(good))))
    found = refused(load_checkpoint, path, like)
    assert found is None or (found.step, found.state) == (3, {"k": 1})


def test_files_that_are_made_to_be_read_by_name_only(home):
    """A manifest cannot lead out of its directory: it is asked for the known names alone."""
    like = Snapshot(4, TENSORS, TENSORS, TENSORS, {})
    path = save_checkpoint(home / "other", like, keep=1)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["../../../secret"] = {"size": 1, "sha256": "0" * 64}
    (path / "manifest.json").write_text(json.dumps(manifest))
    opened = []
    real = os.open
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", lambda name, *how: opened.append(str(name)) or real(name, *how))
        refused(load_checkpoint, path, like)
    assert opened
    assert all(name.startswith(str(path)) and ".." not in name for name in opened)
