"""Mirrors cdm_cli/jobs/exchange/merge.py.

Parts become the store that one command would have made.
"""

import signal

import numpy as np
import pytest

from cdm_cli.data import disk
from cdm_cli.data.store import open_store
from cdm_cli.errors import (
    BadInputError,
    MismatchError,
    MissingError,
    StoppedError,
    UsageError,
    WouldOverwriteError,
)
from cdm_cli.jobs.exchange.merge import run
from cdm_cli.jobs.sampling import sample, upsample
from cdm_cli.options.files import MergeOptions
from cdm_cli.options.sampling import Compute, SampleOptions, Sampling, UpsampleOptions
from tests.asking import as_typed
from tests.data.stores import forget_block
from tests.tiny import (
    Told,
    arrays_of,
    base_config,
    contents,
    in_new_folder,
    sr_config,
    write_stage,
    write_store,
)

CPU = Compute(device="cpu")
NUM = 150  # blocks of 64, 64 and 22


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The undivided stores and their parts, made by the real jobs."""
    with in_new_folder(tmp_path_factory) as home:
        write_stage(home / "runs/base", base_config())
        write_stage(home / "runs/sr", sr_config())
        for out, part in (("whole.h5", None), *((f"p{i}.h5", f"{i}/3") for i in (1, 2, 3))):
            sampled(out, part=part)
        for out, part in (("up.h5", None), ("up1.h5", "1/2"), ("up2.h5", "2/2")):
            upsample.run(
                as_typed(
                    UpsampleOptions,
                    lowres="whole.h5",
                    s=5,
                    keep_s=(7,),
                    out=out,
                    part=part,
                    compute=CPU,
                ),
                Told(),
            )
    return home


def sampled(out, **changes):
    values = {"num": NUM, "keep_s": (5,), "out": out, "compute": CPU}
    return sample.run(as_typed(SampleOptions, **(values | changes)), Told())


@pytest.fixture
def workspace(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(made / "runs")
    for path in made.glob("*.h5"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def merged(*parts, out="out.h5", told=None):
    return run(as_typed(MergeOptions, parts=parts, out=out), told or Told())


@pytest.mark.parametrize(
    ("parts", "whole"),
    [(("p1.h5", "p2.h5", "p3.h5"), "whole.h5"), (("up1.h5", "up2.h5"), "up.h5")],
)
def test_every_byte_is_that_of_the_undivided_command(workspace, parts, whole):
    found = merged(*reversed(parts))
    assert (found.samples, found.blocks, found.made, found.parts) == (NUM, 3, 3, len(parts))
    assert contents("out.h5") == contents(whole)
    with open_store("out.h5") as ours, open_store(whole) as theirs:
        assert ours.parts[""].read_digests() == theirs.parts[""].read_digests()
        assert ours.contents == theirs.contents
        assert ours.provenance["identity"] == theirs.provenance["identity"]
        assert [row["name"] for row in ours.provenance["merged"]] == list(parts)
        assert found.digest == theirs.digest


def test_the_undivided_command_takes_the_result_for_its_own(workspace):
    merged("p1.h5", "p2.h5", "p3.h5")
    assert sampled("out.h5").made == 0


class Killed(BaseException):
    """What a killed process does next: nothing."""


def test_killed_at_any_operation_the_same_command_ends_in_the_same_bytes(workspace):
    ios = []
    with disk.announce_to(ios.append):
        merged("p1.h5", "p2.h5", "p3.h5", out="ref.h5")
    assert len(ios) > 15
    for last in range(len(ios)):
        left = iter(range(last))

        def kill(io, left=left):
            if next(left, None) is None:
                raise Killed

        with pytest.raises(Killed), disk.announce_to(kill):
            merged("p1.h5", "p2.h5", "p3.h5", out="k.h5")
        merged("p1.h5", "p2.h5", "p3.h5", out="k.h5")
        assert contents("k.h5") == contents("whole.h5"), last
        (workspace / "k.h5").unlink()
    assert not [path for path in workspace.iterdir() if path.name.startswith(".")]


def test_a_stopped_merge_continues_where_it_was(workspace):
    told = Told(lambda done: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(StoppedError, match="1 of 3 blocks are complete"):
        merged("p1.h5", "p2.h5", "p3.h5", told=told)
    assert merged("p1.h5", "p2.h5", "p3.h5").made == 2
    assert merged("p1.h5", "p2.h5", "p3.h5").made == 0
    assert contents("out.h5") == contents("whole.h5")


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (("p1.h5", "p3.h5"), r"samples 64\.\.127 are in none"),
        (("p2.h5", "p3.h5"), r"samples 0\.\.63 are in none"),
        (("p1.h5", "p2.h5"), r"samples 128\.\.149 are in none"),
        (("p1.h5", "p2.h5", "p2.h5", "p3.h5"), r"p2\.h5 and p2\.h5 both hold sample 64"),
        (("whole.h5", "p2.h5"), r"whole\.h5 and p2\.h5 both hold sample 64"),
        (("p1.h5", "up2.h5"), "do not belong together: --augment is"),
        (("p1.h5", "other.h5"), "do not belong together: --seed is 1 there, 0 here"),
        (("p1.h5", "plain.h5"), r"plain\.h5 is no part"),
        (("data.h5",), r"data\.h5 is no part"),
    ],
)
def test_what_does_not_belong_together_is_refused_by_name(workspace, parts, says):
    if "other.h5" in parts:
        sampled("other.h5", part="2/2", sampling=Sampling(seed=1))
    write_store("plain.h5", "samples", {"": arrays_of(20, [8])})
    write_store("data.h5", "prepared", {"train": arrays_of(20, [8])})
    with pytest.raises(MismatchError, match=says):
        merged(*parts)
    assert not (workspace / "out.h5").exists()


def with_provenance(path, **changes):
    """Write a store anew with another provenance."""
    with open_store(path) as store:
        part = store.parts[""]
        arrays = {name: np.array(part.map_member(name)) for name in part.members}
        told = {**store.provenance, **changes}
        size = part.block_size
    path = write_store(f"x-{path}", "samples", {"": arrays}, provenance=told, block_size=size)
    return path


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"conventions": {"pixels": "x / 255"}}, "other conventions"),
        ({"numerics": {"precision": "bf16"}}, "precision is bf16 there, fp32 here"),
    ],
)
def test_other_terms_are_refused(workspace, changes, says):
    other = with_provenance("p2.h5", **changes)
    with pytest.raises(MismatchError, match=says):
        merged("p1.h5", other, "p3.h5")


def test_another_device_is_told(workspace):
    with open_store("p2.h5") as store:
        numerics = {**store.provenance["numerics"], "device": "NVIDIA A100"}
    told = Told()
    merged("p1.h5", with_provenance("p2.h5", numerics=numerics), "p3.h5", told=told)
    assert "x-p2.h5 was made with device NVIDIA A100, unlike p1.h5" in told.lines[0]
    assert contents("out.h5") == contents("whole.h5")


def test_a_part_that_begins_within_a_block_is_refused(workspace):
    with open_store("p2.h5") as store:
        identity = {**store.provenance["identity"], "first": 63}
    with pytest.raises(MismatchError, match="begins within a block, at sample 63"):
        merged("p1.h5", with_provenance("p2.h5", identity=identity), "p3.h5")


def test_an_unfinished_part_is_refused(workspace):
    with open_store("p2.h5", writable=True) as store:
        forget_block(store.parts[""], 0)
    with pytest.raises(MissingError, match=r"p2\.h5 is unfinished"):
        merged("p1.h5", "p2.h5", "p3.h5")
    assert not (workspace / "out.h5").exists()


def test_a_damaged_part_is_noticed_as_it_is_read(workspace):
    with open_store("p2.h5") as store:
        place = store.parts[""].images(8).offset + 100
    with open("p2.h5", "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 4]))
    with pytest.raises(BadInputError, match=r"p2\.h5: samples 0\.\.63 do not have the digest"):
        merged("p1.h5", "p2.h5", "p3.h5")
    with open_store("out.h5") as store:
        assert store.parts[""].list_missing() == [1, 2]


def test_nothing_is_overwritten(workspace):
    with pytest.raises(UsageError, match="is one of the parts"):
        merged("p1.h5", "p2.h5", "p3.h5", out="p1.h5")
    before = contents("up.h5")
    with pytest.raises(WouldOverwriteError, match=r"up\.h5 is of another command"):
        merged("p1.h5", "p2.h5", "p3.h5", out="up.h5")
    assert contents("up.h5") == before
