"""Mirrors cdm_cli/jobs/sampling/sample.py.

The store, and that nothing but the command decides its bytes.

Here too: fill.py.
"""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from cdm_cli.cascade.chain import build_chain
from cdm_cli.cascade.generate import SampleInputs, generate
from cdm_cli.cascade.snapshot import save_ema
from cdm_cli.cascade.stagefile import read_stage_file, write_stage_file
from cdm_cli.data.part import Part
from cdm_cli.data.pixels import to_uint8
from cdm_cli.data.store import open_store
from cdm_cli.errors import (
    BadInputError,
    DiskError,
    MismatchError,
    MissingError,
    StoppedError,
    UsageError,
    WouldOverwriteError,
)
from cdm_cli.jobs.checking import inspect
from cdm_cli.jobs.runtime.stop import Stop
from cdm_cli.jobs.sampling import fill as engine
from cdm_cli.jobs.sampling.sample import plan, run
from cdm_cli.names import Sampler
from cdm_cli.options.sampling import Compute, SampleOptions, Sampling
from cdm_cli.options.workspace import InspectOptions
from tests.asking import as_typed
from tests.tiny import Told, base_config, contents, net_of, sr_config, stage_of, write_stage

CONFIG = base_config()


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_stage(tmp_path / "runs/base", CONFIG)
    return tmp_path


def options(out="lowres.h5", **changes):
    values = {"num": 150, "keep_s": (5, 11), "out": out, "compute": Compute(device="cpu")}
    return as_typed(SampleOptions, **(values | changes))


def test_a_store_of_images_labels_ids_and_states(workspace):
    made = run(options(classes="ring,0", keep_s=(11, 0, 5)), Told())
    assert (made.samples, made.made, made.kept_s) == (150, 150, (5, 11))
    assert made.network_evaluations == 150 * 4
    with open_store(workspace / "lowres.h5") as store:
        part = store.parts[""]
        assert store.finished
        assert (store.kind, tuple(store.classes)) == (
            "samples",
            ("disk", "ring", "tench, Tinca tinca"),
        )
        assert part.ids.tolist() == list(range(150))
        assert part.labels.tolist() == [1, 0] * 75
        assert part.z_times == [5, 11]
        assert part.z(5).dtype == np.float16
        assert part.images(8).shape == (150, 8, 8, 3)
        assert store.provenance["identity"]["keep_s"] == [5, 11]
        assert store.provenance["parents"][0]["name"] == "base"


@pytest.mark.parametrize("keep_s", [(), (5,)])
def test_what_is_not_finite_becomes_no_image(workspace, keep_s):
    """Bytes would hide it: the images would be black."""
    state = {name: 1e18 * value for name, value in net_of(CONFIG, 0).state_dict().items()}
    save_ema(workspace / "runs/base", state, step=2)
    with pytest.raises(BadInputError, match="base gives images that are not finite"):
        run(options(keep_s=keep_s), Told())
    with open_store(workspace / "lowres.h5") as store:
        assert not store.finished


def test_samples_are_those_of_generate(workspace):
    run(options(), Told())
    stage = stage_of(CONFIG)
    ids = torch.arange(70, 80)
    chain = build_chain(CONFIG, Sampling(), keep=(5, 11))
    made = generate(stage, chain, SampleInputs(ids, ids % 3), seed=0, keep=(5, 11), batch_size=64)
    with open_store(workspace / "lowres.h5") as store:
        part = store.parts[""]
        expected = to_uint8(made.x_0).permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(part.images(8)[70:80], expected)
        states = made.z[11].half().permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(part.z(11)[70:80], states)


def test_a_stopped_run_continues_and_ends_in_the_same_bytes(workspace, monkeypatch):
    run(options("whole.h5"), Told())
    monkeypatch.setattr(engine, "Stop", AskedAfter)
    told = Told(AskedAfter.count_up)
    AskedAfter.steps, AskedAfter.limit = 0, 6  # in the second of three blocks
    with pytest.raises(StoppedError, match="1 of 3 blocks are complete"):
        run(options(), told)
    AskedAfter.limit = 10**9
    told = Told()
    made = run(options(), told)
    assert made.made == 150 - 64
    assert any("1 of 3 blocks are there" in line for line in told.lines)
    assert contents("lowres.h5") == contents("whole.h5")
    again = run(options(), Told())
    assert again.made == 0


class AskedAfter(Stop):
    """Asks to stop after a number of network evaluations of a batch."""

    steps, limit = 0, 0

    @classmethod
    def count_up(cls, done):
        cls.steps += 1

    @property
    def asked(self):
        return "Ctrl-C" if self.steps > self.limit else ""

    @asked.setter
    def asked(self, name):
        pass


@pytest.mark.parametrize("replaced", [False, True])
def test_a_store_that_is_removed_while_it_is_written_is_not_said_to_be_made(workspace, replaced):
    def remove(done):
        Path("lowres.h5").unlink(missing_ok=True)
        if replaced:
            Path("lowres.h5").write_bytes(b"another's")

    with pytest.raises(MissingError, match="removed or replaced while it was written"):
        run(options(), Told(remove))
    assert Path("lowres.h5").exists() == replaced


def test_the_compute_batch_changes_no_sample_beyond_rounding(workspace):
    run(options("a.h5"), Told())
    run(options("b.h5", compute=Compute(device="cpu", batch_size=7)), Told())
    with open_store("a.h5") as a, open_store("b.h5") as b:
        first, second = a.parts[""].images(8).astype(int), b.parts[""].images(8).astype(int)
        assert np.abs(first - second).max() <= 1


def test_two_processes_make_the_same_bytes_as_one(workspace, in_pair):
    run(options("one.h5"), Told())
    made = run(options("two.h5", compute=Compute(device="cpu", gpus=2)), Told())
    assert made.samples == made.made == 150
    assert contents("two.h5") == contents("one.h5")


def test_a_block_that_is_being_written_at_a_stop_counts(workspace, monkeypatch):
    """It is waited for before it is said how many are complete, and its failure is told."""
    write = Part.write_block

    def write_late(part, number, arrays):
        time.sleep(0.3)
        if failing:
            raise DiskError("no space")
        write(part, number, arrays)

    failing = False
    monkeypatch.setattr(Part, "write_block", write_late)
    monkeypatch.setattr(engine, "Stop", AskedAfter)
    AskedAfter.steps, AskedAfter.limit = 0, 6
    with pytest.raises(StoppedError, match="1 of 3 blocks are complete"):
        run(options(), Told(AskedAfter.count_up))
    failing, AskedAfter.steps = True, 0
    with pytest.raises(DiskError, match="no space"):
        run(options(), Told(AskedAfter.count_up))


def test_a_store_keeps_the_note_that_it_was_begun_with(workspace, monkeypatch):
    monkeypatch.setattr(engine, "Stop", AskedAfter)
    AskedAfter.steps, AskedAfter.limit = 0, 6
    with pytest.raises(StoppedError):
        run(options(sampling=Sampling(note="first")), Told(AskedAfter.count_up))
    AskedAfter.limit = 10**9
    told = Told()
    run(options(sampling=Sampling(note="second")), told)
    assert "lowres.h5: keeps the note that it was begun with" in told.lines
    with open_store("lowres.h5") as store:
        assert store.provenance["note"] == "first"
    run(options("other.h5"), Told())
    told = Told()
    run(options("other.h5", sampling=Sampling(note="late")), told)
    assert "other.h5: goes on without a note" in told.lines


def test_parts_hold_the_same_samples(workspace):
    run(options("whole.h5"), Told())
    for index in (1, 2):
        run(options(f"part{index}.h5", part=f"{index}/2"), Told())
    with ExitStack() as stack:
        names = ("whole.h5", "part1.h5", "part2.h5")
        whole, *parts = (stack.enter_context(open_store(name)).parts[""] for name in names)
        joined = np.concatenate([part.images(8) for part in parts])
        np.testing.assert_array_equal(joined, whole.images(8))
        assert np.concatenate([part.ids for part in parts]).tolist() == list(range(150))


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling": Sampling(seed=1)},
        {"sampling": Sampling(steps=5)},
        {"classes": "0,1"},
        {"num": 151},
        {"keep_s": (5,)},
    ],
)
def test_another_command_under_the_same_name_is_refused(workspace, changes):
    run(options(), Told())
    before = contents("lowres.h5")
    with pytest.raises(WouldOverwriteError, match=r"lowres\.h5"):
        run(options(**changes), Told())
    assert contents("lowres.h5") == before


@pytest.mark.parametrize("sampler", get_args(Sampler))
def test_no_image_changes_with_what_is_kept_nor_a_state_with_the_others(workspace, sampler):
    """At four steps of 20 neither time is visited."""
    sampling = Sampling(sampler=sampler, steps=4)
    for out, keep in (("none.h5", ()), ("one.h5", (11,)), ("both.h5", (6, 11))):
        made = run(options(out, keep_s=keep, sampling=sampling), Told())
        assert made.network_evaluations == 150 * 4
    with ExitStack() as stack:
        none, one, both = (
            stack.enter_context(open_store(name)).parts[""]
            for name in ("none.h5", "one.h5", "both.h5")
        )
        assert one.images(8).tobytes() == both.images(8).tobytes() == none.images(8).tobytes()
        assert one.z(11).tobytes() == both.z(11).tobytes()


def test_states_that_are_visited_are_told_as_ever(workspace):
    """So a store of all T steps, or without states, that an older version began is continued."""
    kept = {"keep_s": (5, 11), "sampling": Sampling(steps=0)}
    for out, changes in (("none.h5", {"keep_s": ()}), ("all.h5", kept), ("some.h5", {})):
        run(options(out, num=3, **changes), Told())
        with open_store(out) as store:
            between = store.provenance["identity"].get("between")
        assert between == ("bridge" if out == "some.h5" else None)


def test_another_batch_by_flag_is_refused_and_without_the_flag_kept(workspace):
    run(options(compute=Compute(device="cpu", batch_size=16)), Told())
    with pytest.raises(WouldOverwriteError, match="--batch-size was 16, is 8"):
        run(options(compute=Compute(device="cpu", batch_size=8)), Told())
    assert run(options(), Told()).made == 0


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"stage": "nothing"}, MissingError, "base"),
        ({"stage": "sr"}, MismatchError, "super-resolution"),
        ({"classes": "rign"}, UsageError, "'ring'"),
        ({"keep_s": (21,)}, UsageError, "1..20"),
        ({"sampling": Sampling(steps=30)}, UsageError, "--steps 30"),
        ({"per_class": 5}, UsageError, "--per-class"),
        ({"part": "5/4"}, UsageError, "--part"),
        ({"stage": "plain", "classes": "0"}, UsageError, "without classes"),
    ],
)
def test_refusals_come_before_any_output(workspace, changes, error, says):
    write_stage(workspace / "runs/sr", sr_config())
    write_stage(workspace / "runs/plain", base_config(num_classes=0))
    with pytest.raises(error, match=says):
        run(options(**changes), Told())
    assert not (workspace / "lowres.h5").exists()


def test_an_unconditional_stage_labels_nothing(workspace):
    write_stage(workspace / "runs/plain", base_config(num_classes=0))
    run(options(stage="plain", num=4, keep_s=()), Told())
    with open_store("lowres.h5") as store:
        assert list(store.classes) == ["unlabelled"]
        assert store.parts[""].labels.tolist() == [0] * 4


def test_dry_run_tells_the_cost_and_writes_nothing(workspace):
    told = plan(options(), Told())
    assert told["samples"] == 150
    assert told["network_evaluations"] == 150 * 4
    assert told["flops"] == told["flops_per_image"] * 600
    assert told["bytes"] == 150 * (8 * 8 * 3 * 5 + 16)
    assert told["parameters"] > 0
    assert told["estimated_seconds"] >= 0
    assert told["disk_bytes"] == told["bytes"]
    one = plan(options(num=1), Told())
    assert one["estimated_seconds"] > 0, "of a single image, from which searches reckon"
    assert told["memory_bytes"] > 4 * told["parameters"]
    assert not (workspace / "lowres.h5").exists()


def with_empty(directory, *empty):
    """Say in `stage.json` that some classes had no image."""
    file = read_stage_file(directory)
    data = file.data.model_copy(update={"without_images": empty})
    write_stage_file(directory, file.model_copy(update={"data": data}))


def test_classes_that_had_no_image_are_not_drawn(workspace):
    with_empty(workspace / "runs/base", 1)
    told = Told()
    assert plan(options(num=None), Told())["classes"] == 2
    made = run(options(num=None, per_class=3), told)
    assert made.samples == 6
    assert "sample: left out 1 of 3 classes without an image: 'ring' (id 1)" in told.lines
    with open_store("lowres.h5") as store:
        assert store.parts[""].labels.tolist() == [0, 2] * 3
    for classes in ("ring", "0-2"):
        with pytest.raises(UsageError, match="without an image: 'ring'"):
            plan(options(classes=classes), Told())


def test_a_stage_without_classes_draws_whatever_had_no_image(workspace):
    write_stage(workspace / "runs/blind", base_config(num_classes=0))
    with_empty(workspace / "runs/blind", 0)
    told = Told()
    run(options(stage="blind", num=4, out="blind.h5"), told)
    with open_store("blind.h5") as store:
        assert store.parts[""].labels.tolist() == [0] * 4
    assert not [line for line in told.lines if "without an image" in line]


def test_a_note_is_kept_and_shown_and_decides_nothing(workspace):
    """The same command with other words continues the store that is there."""
    noted = {"num": 6, "out": "noted.h5", "compute": Compute(device="cpu")}
    run(as_typed(SampleOptions, sampling={"note": "for Figure 7"}, **noted), Told())
    shown = inspect.run(as_typed(InspectOptions, path="noted.h5"), Told())
    assert shown["provenance"]["note"] == "for Figure 7"
    again = run(as_typed(SampleOptions, sampling={"note": "other words"}, **noted), Told())
    assert again.made == 0
