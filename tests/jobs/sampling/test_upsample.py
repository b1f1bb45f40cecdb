"""Mirrors cdm_cli/jobs/sampling/upsample.py.

Z_s of three origins, labels carried on, misfits caught.

Here too: cost.py.
"""

import numpy as np
import pytest
import torch

from cdm_cli.cascade.chain import build_chain
from cdm_cli.cascade.conditioning import draw_non_truncated, take_truncated
from cdm_cli.cascade.generate import SampleInputs, generate
from cdm_cli.cascade.stagefile import read_stage_file, write_stage_file
from cdm_cli.config import ScheduleConfig
from cdm_cli.data.pixels import to_uint8
from cdm_cli.data.store import open_store
from cdm_cli.errors import (
    BadInputError,
    MismatchError,
    MissingError,
    UsageError,
    WouldOverwriteError,
)
from cdm_cli.jobs.sampling import sample, upsample
from cdm_cli.jobs.sampling.upsample import plan, run
from cdm_cli.options.sampling import Compute, SampleOptions, Sampling, UpsampleOptions
from tests.asking import as_typed
from tests.tiny import (
    Told,
    arrays_of,
    base_config,
    contents,
    continuous_config,
    in_new_folder,
    model,
    sr_config,
    stage_of,
    write_stage,
    write_store,
)

CPU = Compute(device="cpu")
CONFIG = sr_config()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A base store of 70 samples with z/5, made by the real job; a prepared store."""
    with in_new_folder(tmp_path_factory) as home:
        write_stage(home / "runs/base", base_config())
        sample.run(
            as_typed(SampleOptions, num=70, keep_s=(5,), compute=CPU, classes="2,0,1"), Told()
        )
    write_store(
        home / "data.h5", "prepared",
        {"train": arrays_of(20, [8, 16]), "val": arrays_of(66, [8, 16], seed=1)},
    )  # fmt: skip
    return home


@pytest.fixture
def workspace(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_stage(tmp_path / "runs/sr", CONFIG)
    for name in ("lowres.h5", "data.h5"):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    return tmp_path


def options(**changes):
    return as_typed(UpsampleOptions, **({"s": 5, "compute": CPU} | changes))


def expected(z_s, ids, y, s, config=CONFIG, seed=0):
    chain = build_chain(config, Sampling())
    samples = SampleInputs(ids, y, z_s, torch.full_like(ids, s))
    made = generate(stage_of(config), chain, samples, seed=seed, batch_size=64)
    return to_uint8(made.x_0).permute(0, 2, 3, 1).numpy()


def lowres_rows(rows):
    with open_store("lowres.h5") as store:
        part = store.parts[""]
        arrays = (part.images(8), part.ids, part.labels, part.z(5))
        z_0, ids, y, z_s = (torch.from_numpy(np.array(array[rows])) for array in arrays)
        return z_0.permute(0, 3, 1, 2), ids, y, z_s


def images(path="samples.h5"):
    with open_store(path) as store:
        return np.array(store.parts[""].images(16))


def test_non_truncated_is_the_default_and_labels_are_carried_on(workspace):
    told = Told()
    made = run(options(), told)
    assert (made.samples, made.resolution) == (70, 16)
    assert any("runs/sr" in line for line in told.lines)
    rows = slice(66, 70)
    z_0, ids, y, _ = lowres_rows(rows)
    z_s = draw_non_truncated(CONFIG, z_0, 5, ids=ids, seed=0)
    np.testing.assert_array_equal(images()[rows], expected(z_s, ids, y, 5))
    with open_store("samples.h5") as store, open_store("lowres.h5") as low:
        assert store.parts[""].labels.tolist() == low.parts[""].labels.tolist()
        assert store.parts[""].ids.tolist() == low.parts[""].ids.tolist()
        assert store.classes == low.classes
        roles = {parent["role"]: parent["digest"] for parent in store.provenance["parents"]}
        assert roles["lowres"] == low.digest


def test_truncated_takes_the_states_of_the_store(workspace):
    run(options(augment="truncated"), Told())
    _, ids, y, z = lowres_rows(slice(0, 3))
    np.testing.assert_array_equal(images()[:3], expected(take_truncated(z), ids, y, 5))


def test_both_kinds_are_the_same_at_s_0(workspace):
    run(options(s=0), Told())
    run(options(s=0, augment="truncated", out="t.h5"), Told())
    np.testing.assert_array_equal(images(), images("t.h5"))
    run(options(s=1, out="one.h5"), Told())
    assert (images() != images("one.h5")).any()


def test_ground_truth_is_the_val_split_unless_told_otherwise(workspace):
    run(options(lowres="data.h5", out="val.h5"), Told())
    run(options(lowres="data.h5", split="train", out="train.h5"), Told())
    assert (len(images("val.h5")), len(images("train.h5"))) == (66, 20)
    run(options(lowres="data.h5", num=11, out="some.h5"), Told())
    with open_store("some.h5") as store:
        part = store.parts[""]
        assert sorted(np.bincount(part.labels)) == [3, 4, 4]
        np.testing.assert_array_equal(images("some.h5"), images("val.h5")[part.ids])


def test_stages_chain(workspace):
    write_stage(workspace / "runs/sr2", sr_config(16, 32))
    run(options(num=5), Told())
    made = run(options(lowres="samples.h5", out="big.h5", s=0), Told())
    assert made.resolution == 32
    with open_store("big.h5") as store, open_store("lowres.h5") as low:
        assert store.parts[""].labels.tolist() == low.parts[""].labels[:5].tolist()


def test_three_stages_are_conditioned_on_the_states_of_the_pass_before(workspace):
    """Section 3.2 all the way up: each stage keeps what the next one starts from."""
    write_stage(workspace / "runs/sr2", sr_config(16, 32))
    made = run(options(augment="truncated", keep_s=(7, 0), num=5), Told())
    assert made.kept_s == (7,)
    run(options(augment="truncated", num=5, out="plain.h5"), Told())
    np.testing.assert_array_equal(images(), images("plain.h5"))
    run(options(lowres="samples.h5", augment="truncated", s=7, out="big.h5"), Told())
    with open_store("samples.h5") as store, open_store("big.h5") as big:
        part = store.parts[""]
        assert part.z(7).shape == (5, 16, 16, 3)
        z_s, ids, y = (torch.from_numpy(np.array(it)) for it in (part.z(7), part.ids, part.labels))
        got = np.array(big.parts[""].images(32))
    config = sr_config(16, 32)
    np.testing.assert_array_equal(got, expected(take_truncated(z_s), ids, y, 7, config))


@pytest.mark.parametrize(
    ("lowres", "advice"),
    [
        ("lowres.h5", r"Next: cdm sample … --keep-s 6 with another -o, or --augment non-trunc"),
        ("samples.h5", r"Next: cdm upsample … --keep-s 6 with another -o, or --augment non-trunc"),
        ("data.h5", r"Next: --augment non-truncated"),
    ],
)
def test_who_lacks_a_state_is_told_which_command_keeps_it(workspace, lowres, advice):
    write_stage(workspace / "runs/sr2", sr_config(16, 32))
    run(options(num=2), Told())
    model = "sr2" if lowres == "samples.h5" else "sr"
    with pytest.raises(MismatchError, match=advice):
        run(options(lowres=lowres, model=model, s=6, augment="truncated", out="x.h5"), Told())


def test_a_stage_of_the_blur_kind_is_given_z_0(workspace):
    config = continuous_config()
    write_stage(workspace / "runs/blur", config)
    run(options(model="blur", s=None, num=3), Told())
    z_0, ids, y, _ = lowres_rows(slice(0, 3))
    z = z_0.float() / 127.5 - 1
    np.testing.assert_array_equal(images(), expected(z, ids, y, 0, config))


def test_continues_and_refuses_to_mix(workspace):
    run(options(), Told())
    before = contents("samples.h5")
    assert run(options(), Told()).made == 0
    for changes in ({"s": 6}, {"augment": "truncated"}, {"num": 69}, {"keep_s": (5,)}):
        with pytest.raises(WouldOverwriteError, match=r"samples\.h5"):
            run(options(**changes), Told())
    assert contents("samples.h5") == before


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"s": None}, UsageError, r"--s is missing: the stage takes 0\.\.20"),
        ({"s": 21}, UsageError, "--s 21"),
        ({"s": 6, "augment": "truncated"}, MismatchError, r"no z_s for s = 6, only for 5"),
        ({"lowres": "data.h5", "augment": "truncated"}, MismatchError, "nor any other"),
        ({"lowres": "data.h5", "augment": "truncated", "s": 0}, MismatchError, "nor any other"),
        ({"lowres": "none.h5"}, MissingError, r"none\.h5"),
        ({"split": "val"}, UsageError, r"--split val: \S+ holds samples, which have no splits"),
        ({"num": 71}, UsageError, "has 70 images"),
        ({"keep_s": (21,)}, UsageError, "--keep-s 21: the stage has times 1..20"),
        ({"model": "base"}, MismatchError, "it is a base stage"),
        ({"model": "sr16"}, MismatchError, "starts from 16×16, the store has 8"),
        ({"model": "gray"}, MismatchError, "has 1 channel, the store 3"),
        ({"model": "two"}, MismatchError, "has 2 classes, the store 3"),
        ({"model": "other"}, MismatchError, "class 1 is 'rings' in the stage, 'ring'"),
        ({"model": "otherz", "augment": "truncated"}, MismatchError, "another noise schedule"),
        ({"out": "lowres.h5"}, UsageError, "the store that is upsampled"),
        ({"sampling": {"variance": "learned", "sampler": "ddim"}}, UsageError, "--variance"),
    ],
)
def test_misfits_are_caught_from_headers(workspace, monkeypatch, changes, error, says):
    names = ("disk", "rings", "tench, Tinca tinca")
    write_stage(workspace / "runs/base", base_config())
    write_stage(workspace / "runs/sr16", sr_config(16, 32))
    write_stage(workspace / "runs/gray", sr_config(model=model(16, channels=1)))
    write_stage(
        workspace / "runs/two", sr_config(model=model(16, num_classes=2)), classes=names[:2]
    )
    write_stage(workspace / "runs/other", sr_config(), classes=names)
    z_schedule = ScheduleConfig(kind="cosine", T=30)
    low = CONFIG.conditioning.model_copy(update={"z_schedule": z_schedule})
    write_stage(workspace / "runs/otherz", sr_config(conditioning=low))
    monkeypatch.setattr("cdm_cli.jobs.sampling.ready.load_fast_stage", loaded)
    before = sorted(path.name for path in workspace.iterdir())
    with pytest.raises(error, match=says):
        run(options(**({"model": "sr"} | changes)), Told())
    assert sorted(path.name for path in workspace.iterdir()) == before


def loaded(*_):
    raise AssertionError("weights were loaded")


def test_several_stages_that_fit_must_be_told_apart(workspace):
    write_stage(workspace / "runs/sr-b", sr_config())
    with pytest.raises(UsageError, match=r"--model is missing: sr, sr-b in runs/ all fit"):
        run(options(), Told())


def test_no_stage_that_fits_says_why_each_does_not(workspace):
    write_store(workspace / "x.h5", "samples", {"": arrays_of(4, [32])})
    with pytest.raises(MissingError, match="sr: the stage starts from 8×8, the store has 32"):
        run(options(lowres="x.h5"), Told())


def test_unfinished_and_damaged_input_is_refused(workspace):
    arrays = {"": arrays_of(130, [8])}
    write_store(workspace / "half.h5", "samples", arrays, blocks=2)
    with pytest.raises(MissingError, match=r"half\.h5 is unfinished: 1 of 3 blocks"):
        run(options(lowres="half.h5"), Told())
    data = bytearray((workspace / "lowres.h5").read_bytes())
    with open_store("lowres.h5") as store:
        pixel = store.parts[""].images(8)[66].tobytes()
    data[data.index(pixel)] ^= 1
    (workspace / "lowres.h5").write_bytes(data)
    with pytest.raises(BadInputError, match=r"samples 64\.\."):
        run(options(), Told())


def test_dry_run_tells_the_cost_and_writes_nothing(workspace):
    told = plan(options(num=10, keep_s=(5,)), Told())
    assert told["bytes"] == 10 * (16 * 16 * 3 * 3 + 16)
    assert (told["samples"], told["s"], told["augment"]) == (10, 5, "non-truncated")
    assert told["network_evaluations"] == 30
    assert not (workspace / "samples.h5").exists()


def test_process_of_a_store_that_no_stage_made(workspace):
    with open_store("data.h5") as store:
        assert upsample.read_process(store) == []


def test_classes_that_the_stage_has_never_seen_are_told(workspace):
    file = read_stage_file(workspace / "runs/sr")
    data = file.data.model_copy(update={"without_images": (2,)})
    write_stage_file(workspace / "runs/sr", file.model_copy(update={"data": data}))
    told = Told()
    run(options(num=4), told)
    said = next(line for line in told.lines if "was trained with" in line)
    assert said.endswith("1 of 3 classes without an image: 'tench, Tinca tinca' (id 2)")


def test_a_damaged_stage_is_in_nobody_s_way(workspace):
    write_stage(workspace / "runs/torn", sr_config())
    (workspace / "runs/torn/stage.json").write_text("{")
    assert run(options(num=8), Told()).samples == 8
