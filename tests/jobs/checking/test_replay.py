"""Mirrors cdm_cli/jobs/checking/{replay,replay_plan}.py: what a store claims its stage makes.

Here too: origin.py.
"""

from pathlib import Path

import numpy as np
import pytest

from cdm_cli.cascade.snapshot import Snapshot, save_checkpoint
from cdm_cli.data.store import open_store
from cdm_cli.errors import BadInputError, MismatchError, MissingError, UsageError
from cdm_cli.jobs.checking import replay
from cdm_cli.jobs.checking.replay_plan import choose_places
from cdm_cli.jobs.checking.verify import run
from cdm_cli.jobs.exchange import merge
from cdm_cli.jobs.runtime.same_stage import compute_config_digest
from cdm_cli.jobs.sampling.headers import read_header
from cdm_cli.jobs.sampling.schedule_file import ScheduleFile, Searched
from cdm_cli.options.files import MergeOptions, VerifyOptions
from cdm_cli.options.sampling import Compute, Sampling
from tests.asking import as_typed
from tests.jobs.checking.verifying import copied, make, sampled, upsampled, verified
from tests.tiny import (
    Told,
    arrays_of,
    base_config,
    continuous_config,
    net_of,
    write_stage,
    write_store,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def workspace(made, tmp_path, monkeypatch):
    return copied(made, tmp_path, monkeypatch)


def tampered(path, row, name="images/16", change=lambda pixels: pixels ^ 1):
    """Change one sample, with digests that fit."""
    with open_store(path, writable=True) as store:
        part = store.parts[""]
        b = row // part.block_size
        block = part.read_block(b)
        inside = row - b * part.block_size
        block[name][inside] = change(block[name][inside])
        part.put_block(b, block)


@pytest.mark.parametrize(
    ("path", "begin"),
    [
        ("lowres.h5", lambda: None),
        ("samples.h5", lambda: None),
        ("a.h5", lambda: sampled("a.h5", num=30, sampling=Sampling(restart_from=9, seed=3))),
        (
            "a.h5",
            lambda: sampled("a.h5", num=9, sampling=Sampling(sampler="ddim", steps=0, clip=False)),
        ),
        ("a.h5", lambda: sampled("a.h5", num=70, part="2/2", sampling=Sampling(variance="small"))),
        ("a.h5", lambda: upsampled("a.h5", augment="truncated", num=26, keep_s=(1, 7, 20))),
        ("a.h5", lambda: upsampled("a.h5", lowres="data.h5", split="train", num=26)),
        ("a.h5", lambda: searched("a.h5")),
        ("a.h5", lambda: kept("a.h5")),
    ],
)
def test_a_replay_makes_the_same_bits(workspace, path, begin):
    write_store("data.h5", "prepared", {"train": arrays_of(80, [8]), "val": arrays_of(9, [8])})
    begin()
    found = verified(path, replay=3).replay
    assert found.compared >= 3
    assert (found.identical, found.largest, found.tolerance) == (found.compared, 0, 0)
    assert found.failure(path) is None


def searched(out):
    """Upsample along a schedule that tune-schedule could have found."""
    config = continuous_config()
    write_stage(Path("runs/blur"), config)
    schedule = Searched(
        steps=3, variance="large", alpha_bar=(0.9, 0.5, 0.01), score=1, baseline=2, trials=1
    )
    file = ScheduleFile(
        cdm_version="0", stage="blur", stage_digest="", config_digest=compute_config_digest(config),
        lowres="", lowres_digest="", metric="fid", convention={}, s=0, num=2, seed=0,
        schedules=(schedule,),
    )  # fmt: skip
    with open("schedule.json", "w") as opened:
        opened.write(file.model_dump_json())
    upsampled(out, model="blur", s=None, sampling=Sampling(schedule="schedule.json"))


def kept(out):
    """Upsample on times with a stochasticity each that the stage keeps, and lose them."""
    config = read_header(Path("runs/sr")).config
    schedule = Searched(
        steps=3, sampler="dpm-solver++", variance="small", times=(18, 9, 2),
        stochasticity=(1.0, 0.4, 0.0), score=1, baseline=2, trials=1,
    )  # fmt: skip
    file = ScheduleFile(
        cdm_version="0", stage="sr", stage_digest="", config_digest=compute_config_digest(config),
        lowres="", lowres_digest="", metric="fid", convention={}, s=5, num=2, seed=0,
        schedules=(schedule,),
    )  # fmt: skip
    path = Path("runs/sr/schedules/steps-3.json")
    path.parent.mkdir()
    path.write_text(file.model_dump_json())
    upsampled(out, s=5, num=26, keep_s=(1, 5, 9, 14), sampling=Sampling(steps=3))
    path.unlink()


def test_whole_compute_batches_are_replayed_once(workspace):
    told = Told()
    found = run(as_typed(VerifyOptions, path="lowres.h5", device="cpu", replay=70), told).replay
    assert (found.asked, found.compared) == (70, 70)
    assert "70 samples in 4 batches, by runs/base (ema)" in told.lines[0]
    assert told.total == 2 + 70 * 4


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("samples.h5", "images/16"),
        ("lowres.h5", "images/8"),
        ("lowres.h5", "z/5"),
        ("lowres.h5", "ids"),
    ],
)
def test_a_store_that_was_changed_with_its_digests_is_caught(workspace, path, name):
    def change(values):
        values = np.array(values)
        flat = values.reshape(-1)
        flat[0] = flat[0] + 1 if flat[0] < 100 else flat[0] - 1
        return values

    tampered(path, 67, name, change)
    assert verified(path).state == "good"
    found = verified(path, replay=70)
    assert found.state == "damaged"
    assert [row["row"] for row in found.replay.differing] == [67]
    assert isinstance(found.failure(), BadInputError)
    assert "samples that its provenance does not make" in found.failure().what


def test_another_device_or_build_may_round_otherwise_but_not_more(workspace, monkeypatch):
    monkeypatch.setattr(replay, "describe_build", lambda device: "another torch")
    found = verified(replay=1).replay
    assert (found.tolerance, found.largest) == (8, 0)
    assert "which rounds otherwise" in found.why

    def darker(by):
        return lambda pixels: np.where(pixels > 127, pixels - by, pixels + by).astype(np.uint8)

    tampered("samples.h5", 30, change=darker(8))
    tampered("samples.h5", 31, change=darker(9))
    found = verified(replay=70)
    assert (found.state, found.replay.largest, found.replay.identical) == ("damaged", 9, 68)
    assert [row["row"] for row in found.replay.differing] == [31]


def test_samples_are_chosen_by_the_seed():
    assert choose_places(100, 3, 0, "x") == choose_places(100, 3, 0, "x")
    assert choose_places(100, 3, 0, "x") != choose_places(100, 3, 1, "x")
    assert choose_places(5, 5, 0, "x") == list(range(5))
    with pytest.raises(UsageError, match="has 5 samples"):
        choose_places(5, 6, 0, "x")


def test_each_part_of_a_merged_store_is_replayed_as_it_was_made(workspace):
    for index, batch in ((1, 32), (2, 20)):
        compute = Compute(device="cpu", batch_size=batch)
        sampled(f"p{index}.h5", num=70, part=f"{index}/2", compute=compute)
    merge.run(as_typed(MergeOptions, parts=("p1.h5", "p2.h5"), out="m.h5"), Told())
    told = Told()
    found = run(as_typed(VerifyOptions, path="m.h5", device="cpu", replay=70), told).replay
    assert (found.identical, found.tolerance) == (70, 0)
    assert "70 samples in 3 batches" in told.lines[0]


def test_stage_and_lowres_may_be_elsewhere(workspace):
    (workspace / "away").mkdir()
    (workspace / "runs/sr").rename("away/sr")
    (workspace / "lowres.h5").rename("away/lowres.h5")
    with pytest.raises(MissingError, match=r"the stage of samples\.h5 \(sr, digest"):
        verified(replay=1)
    with pytest.raises(MissingError, match=r"lowres\.h5 \(digest"):
        verified(replay=1, model="away/sr")
    assert verified(replay=1, model="away/sr", lowres="away/lowres.h5").state == "good"
    with pytest.raises(MismatchError, match="none of its weights made"):
        verified(replay=1, model="base", lowres="away/lowres.h5")
    with pytest.raises(MismatchError, match="its digest is"):
        verified(replay=1, model="away/sr", lowres="samples.h5")


def test_the_weights_of_a_checkpoint_are_found(workspace):
    tensors = net_of(base_config(), seed=4).state_dict()
    moments = {f"exp_avg.{name}": t for name, t in tensors.items()}
    save_checkpoint(workspace / "runs/base", Snapshot(7, tensors, tensors, moments), keep=1)
    sampled("a.h5", num=5, sampling=Sampling(weights="step-00000007"))
    found = verified("a.h5", replay=2)
    assert found.parents[0]["found"] == "runs/base (step-00000007)"
    assert found.replay.identical == found.replay.compared


def test_what_cannot_be_replayed_says_why(workspace):
    write_store("plain.h5", "samples", {"": arrays_of(20, [8])})
    with pytest.raises(UsageError, match="was not made by cdm sample or cdm upsample"):
        verified("plain.h5", replay=1)
    with open_store("lowres.h5") as store:
        told = {**store.provenance}
        part = store.parts[""]
        arrays = {name: np.array(part.map_member(name)) for name in part.members}
    for changes, says in (
        ({"numerics": {}}, "does not tell batch_size"),
        ({"identity": {**told["identity"], "seed": -1}}, "does not tell seed"),
        ({"identity": {**told["identity"], "times": [3, 40]}}, "chain that its stage does not"),
        ({"identity": {**told["identity"], "steps": 3}}, "chain that its stage does not"),
        ({"identity": {**told["identity"], "stochasticity": [2.0]}}, "does not tell stochasticity"),
        *(
            (
                {"identity": {**told["identity"], "sampler": name, "stochasticity": [0.5]}},
                "chain that its stage does not",
            )
            for name in ("ancestral", "ddim")
        ),
        ({"merged": 3}, "does not tell merged"),
    ):
        path = write_store("b.h5", "samples", {"": arrays}, provenance=told | changes)
        with pytest.raises(BadInputError, match=says):
            verified(path, replay=1)
        (workspace / "b.h5").unlink()
