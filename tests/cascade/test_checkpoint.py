"""Mirrors cdm_cli/cascade/{checkpoint,snapshot,stagefile,files}.py: stage directories on disk."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from cdm_cli.cascade.checkpoint import find_weights_file, load_diffusion_stage, load_stage
from cdm_cli.cascade.classifier import ClassifierStage
from cdm_cli.cascade.saved import (
    MANIFEST,
    find_latest_checkpoint,
    list_checkpoints,
    name_checkpoint,
    remove_checkpoint,
)
from cdm_cli.cascade.snapshot import Snapshot, load_checkpoint, save_best, save_checkpoint, save_ema
from cdm_cli.cascade.stage import Stage
from cdm_cli.cascade.stagefile import find_stage, list_stages, read_stage_file, write_stage_file
from cdm_cli.config import ClassifierConfig
from cdm_cli.data import disk
from cdm_cli.errors import (
    BadInputError,
    CdmError,
    DiskError,
    MismatchError,
    MissingError,
    UnsafeInputError,
    UsageError,
)
from cdm_cli.nets.classifier import Classifier
from cdm_cli.plans import Plan, StageFile, TrainingConfig
from cdm_cli.signals import leave, leave_when_asked
from tests.forking import fork
from tests.tiny import CLASSES, base_config, net_of, sr_config, write_stage


def snapshot(step, value=1.0, state=None):
    tensors = {"w": torch.full((3, 2), value), "b": torch.tensor([value])}
    return Snapshot(step, tensors, tensors, {"exp_avg.w": tensors["w"]}, state or {"k": step})


class Killed(BaseException):
    """What a killed process does next: nothing."""


@pytest.fixture
def base(tmp_path):
    return write_stage(tmp_path / "runs" / "base", base_config())


@pytest.mark.parametrize("kind", ["write", "sync", "rename"])
def test_a_signal_that_ends_the_program_leaves_no_half_of_a_checkpoint(kind, tmp_path):
    """Ctrl-C a second time, while the stop that the first one asked for is being saved."""

    def press(io):
        if io.kind == kind and "optimizer" in io.path.name:
            leave(signal.SIGINT)

    if not (pid := fork()):
        leave_when_asked(says=False)
        with disk.announce_to(press):
            save_checkpoint(tmp_path, snapshot(2), keep=1)
        os._exit(70)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert os.listdir(tmp_path / "checkpoints") == []


def test_a_checkpoint_comes_back(tmp_path):
    path = save_checkpoint(tmp_path, snapshot(1000, 0.1), keep=2)
    assert path == tmp_path / "checkpoints" / "step-00001000" == find_latest_checkpoint(tmp_path)
    loaded = load_checkpoint(path, snapshot(0))
    assert (loaded.step, loaded.state) == (1000, {"k": 1000})
    assert torch.equal(loaded.model["w"], torch.full((3, 2), 0.1))
    assert loaded.optimizer.keys() == {"exp_avg.w"}


def test_the_newest_are_kept_and_one_of_the_same_step_is_replaced(tmp_path):
    for step in (1, 2, 10, 2):
        save_checkpoint(tmp_path, snapshot(step, float(step)), keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        name_checkpoint(2),
        name_checkpoint(10),
    ]
    assert find_latest_checkpoint(tmp_path / "none") is None


def test_killed_at_any_operation_an_older_checkpoint_stays_whole(tmp_path):
    """Every operation of the second save is the last one in turn."""
    save_checkpoint(tmp_path, snapshot(1), keep=1)
    names = []
    with disk.announce_to(names.append):
        save_checkpoint(tmp_path, snapshot(2), keep=1)
    assert len(names) > 20
    for last in range(len(names)):
        home = tmp_path / str(last)
        save_checkpoint(home, snapshot(1), keep=1)
        left = iter(range(last))

        def kill(io, left=left):
            if next(left, None) is None:
                raise Killed

        with pytest.raises(Killed), disk.announce_to(kill):
            save_checkpoint(home, snapshot(2), keep=1)
        found = find_latest_checkpoint(home)
        assert found is not None
        assert load_checkpoint(found, snapshot(0)).state == {"k": int(found.name[5:])}
        save_checkpoint(home, snapshot(2), keep=1)
        assert sorted(path.name for path in (home / "checkpoints").iterdir()) == [
            name_checkpoint(2)
        ]


def test_a_checkpoint_that_is_half_removed_does_not_count(tmp_path):
    """Its manifest goes first, durably: at no operation is it there without one of its files."""
    path = save_checkpoint(tmp_path, snapshot(1), keep=1)
    whole, seen = {file.name for file in path.iterdir()}, []

    def look(io):
        left = {file.name for file in path.iterdir()} if path.exists() else set[str]()
        seen.append((io.kind, io.path.name))
        assert left == whole or not list_checkpoints(tmp_path), f"{left} counts"

    with disk.announce_to(look):
        remove_checkpoint(path)
    assert seen[:2] == [("unlink", "manifest.json"), ("sync_directory", path.name)]
    assert len(seen) > len(whole)
    assert not path.exists()


def test_nothing_of_another_name_is_ever_removed(tmp_path):
    """A copy that somebody keeps there, or all that a linked directory holds, is not litter."""
    home, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    save_checkpoint(tmp_path, snapshot(1), keep=1)
    (home / "step-00000001").rename(home / "my copy")
    (home / "step-00000007").mkdir()
    (home / ".step-00000008.partial").mkdir()
    (home / ".hidden.partial").mkdir()
    home.rename(elsewhere)
    home.symlink_to(elsewhere)
    save_checkpoint(tmp_path, snapshot(2), keep=1)
    found = {path.name for path in elsewhere.iterdir()}
    assert found == {"my copy", ".hidden.partial", "step-00000002"}


def test_a_damaged_later_checkpoint_is_not_among_those_kept(tmp_path):
    """Else the good one would go as soon as training that passed over the damaged one saves."""
    save_checkpoint(tmp_path, snapshot(9), keep=1)
    for step in (5, 6):
        save_checkpoint(tmp_path, snapshot(step), keep=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        name_checkpoint(6),
        name_checkpoint(9),
    ]


def test_a_full_disk_leaves_no_piece_of_a_checkpoint(tmp_path):
    def full(io):
        if io.kind == "write" and io.path.name.startswith(".optimizer"):
            raise OSError(errno.ENOSPC, "No space left on device")

    save_checkpoint(tmp_path, snapshot(1), keep=1)
    with pytest.raises(DiskError, match="No space"), disk.announce_to(full):
        save_checkpoint(tmp_path, snapshot(2), keep=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [name_checkpoint(1)]


def test_a_directory_without_its_manifest_does_not_count(tmp_path):
    save_checkpoint(tmp_path, snapshot(1), keep=3)
    newer = save_checkpoint(tmp_path, snapshot(2), keep=3)
    (newer / MANIFEST).unlink()
    found = find_latest_checkpoint(tmp_path)
    assert found is not None
    assert found.name == name_checkpoint(1)


@pytest.mark.parametrize("name", ["model", "ema", "optimizer", "state", "manifest"])
def test_every_damaged_file_of_a_checkpoint_is_noticed(tmp_path, name):
    path = save_checkpoint(tmp_path, snapshot(1), keep=1)
    (file,) = path.glob(f"{name}.*")
    data = file.read_bytes()
    for place in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        file.write_bytes(damaged)
        with pytest.raises(CdmError):
            load_checkpoint(path, snapshot(0))
    file.unlink()
    with pytest.raises(MissingError):
        load_checkpoint(path, snapshot(0))


def test_checkpoint_of_another_model(tmp_path):
    path = save_checkpoint(tmp_path, snapshot(1), keep=1)
    other = Snapshot(0, {"w": torch.zeros(2, 2), "b": torch.zeros(1)}, {}, {})
    with pytest.raises(
        MismatchError, match=r"tensor w is F32 \[3, 2\], the model has F32 \[2, 2\]"
    ):
        load_checkpoint(path, other)


def test_stage_file_comes_back(base):
    file = read_stage_file(base)
    assert file.plan.stage == base_config()
    assert file.data is not None
    assert file.data.classes == CLASSES


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "stage.json: is no JSON"),
        ("[" * 200_000, "stage.json: is no JSON"),
        ("{}", "cdm_version: is missing"),
        ('{"schema_version": 2}', "schema_version: expected 1"),
        ("\x00\xff", "stage.json"),
    ],
)
def test_bad_stage_files(base, text, words):
    (base / "stage.json").write_text(text)
    with pytest.raises(BadInputError, match=words):
        read_stage_file(base)


def test_a_stage_file_that_could_not_be_read_again_is_not_written(base):
    file = read_stage_file(base)
    assert file.data is not None
    names = tuple("n" * 50 + str(number) for number in range(100_000))
    long = file.model_copy(update={"data": file.data.model_copy(update={"classes": names})})
    with pytest.raises(MismatchError, match="4194304 are the most"):
        write_stage_file(base, long)
    assert read_stage_file(base) == file


def test_stage_file_with_an_unknown_field_names_it(base):
    values = json.loads((base / "stage.json").read_text())
    values["plan"]["stage"]["model"]["resolutoin"] = 8
    (base / "stage.json").write_text(json.dumps(values))
    with pytest.raises(BadInputError, match=r"model\.resolutoin: there is no such setting"):
        read_stage_file(base)


def test_a_linked_stage_file_is_not_followed(base):
    (base / "stage.json").rename(base / "elsewhere")
    os.symlink(base / "elsewhere", base / "stage.json")
    with pytest.raises(UnsafeInputError):
        read_stage_file(base)


def test_find_stage_by_name_and_by_path(base, tmp_path):
    runs = tmp_path / "runs"
    assert find_stage("base", runs) == base
    assert find_stage(base, tmp_path / "elsewhere") == base
    write_stage(runs / "sr", sr_config())
    assert list_stages(runs) == ["base", "sr"]
    with pytest.raises(MissingError, match="has base, sr"):
        find_stage("bsae", runs)
    with pytest.raises(MissingError, match="has no stage"):
        find_stage("base", tmp_path / "elsewhere")


@pytest.mark.parametrize("name", [".", "", "/", "..", "a/..", "x/--y"])
def test_what_cannot_be_the_name_of_a_stage_is_not_advised(name, tmp_path):
    with pytest.raises(MissingError) as caught:
        find_stage(name, tmp_path / "elsewhere")
    assert caught.value.next == "cdm train NAME --preset P"


def test_weights_that_are_not_there_name_those_that_are(base):
    with pytest.raises(MissingError) as caught:
        find_weights_file(base, "step-00000009")
    assert caught.value.next == "cdm train base"
    save_checkpoint(base, snapshot(4), keep=1)
    with pytest.raises(MissingError) as caught:
        find_weights_file(base, "step-00000009")
    assert caught.value.next == "--weights step-00000004"


def test_load_stage(base, tmp_path):
    stage = load_stage("base", tmp_path / "runs")
    assert isinstance(stage, Stage)
    assert (stage.name, stage.classes, stage.config) == ("base", CLASSES, base_config())
    expected = net_of(base_config()).state_dict()
    for name, tensor in stage.net.state_dict().items():
        assert torch.equal(tensor, expected[name])
    assert not stage.net.training
    assert not any(p.requires_grad or p.is_meta for p in stage.net.parameters())
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 4])
    assert stage.eps_theta(stage.schedule, torch.tensor([0, 1]))(x, t).shape == (2, 6, 8, 8)


def test_digest_tells_weights_and_configuration_apart(tmp_path):
    runs = tmp_path / "runs"
    write_stage(runs / "a", base_config())
    write_stage(runs / "same", base_config())
    write_stage(runs / "weights", base_config(), seed=1)
    write_stage(runs / "config", base_config(steps=5))
    digests = [load_stage(name, runs).digest for name in ("a", "same", "weights", "config")]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_which_weights(base, tmp_path):
    runs = tmp_path / "runs"
    first = net_of(base_config(), seed=1).state_dict()
    second = net_of(base_config(), seed=2).state_dict()
    save_best(base, first, 500, "fid 12.5")
    save_checkpoint(base, Snapshot(7, second, second, {}), keep=1)
    for weights, expected in (("best", first), ("step-00000007", second)):
        stage = load_diffusion_stage("base", runs, weights)
        assert all(torch.equal(stage.net.state_dict()[k], v) for k, v in expected.items())
    with pytest.raises(MissingError, match="step-00000007"):
        load_stage("base", runs, "step-00000008")
    with pytest.raises(UsageError, match="latest"):
        load_stage("base", runs, "latest")


def test_weights_of_another_architecture(base, tmp_path):
    save_ema(base, net_of(sr_config()).state_dict(), 1)
    with pytest.raises(MismatchError, match="not of this model"):
        load_stage("base", tmp_path / "runs")


def test_classifier_is_a_module_of_features_and_logits(tmp_path):
    config = ClassifierConfig(
        resolution=8, base_channels=8, channel_mult=(1, 2), num_res_blocks=1, num_classes=3
    )
    directory = tmp_path / "runs" / "features"
    directory.mkdir(parents=True)
    plan = Plan(preset="classifier", source="tests", stage=config, training=TrainingConfig())
    write_stage_file(directory, StageFile(cdm_version="0", plan=plan, data=None))
    net = Classifier(config)
    save_ema(directory, net.state_dict(), 1)
    loaded = load_stage("features", tmp_path / "runs")
    assert isinstance(loaded, ClassifierStage)
    assert isinstance(loaded, torch.nn.Module)
    assert (loaded.resolution, loaded.training) == (8, False)
    x = torch.randn(2, 3, 8, 8)
    for part, expected in zip(loaded(x), net(x), strict=True):
        assert torch.equal(part, expected)
    with pytest.raises(MismatchError, match="is a classifier"):
        load_diffusion_stage("features", tmp_path / "runs")


LIGHT = """
import sys
from cdm_cli.cascade.checkpoint import build_empty_net
from cdm_cli.presets import preset
for name in ("tiny-sr8-16", "tiny-base8"):
    net = build_empty_net(preset(name).stage)
    assert {p.device.type for p in net.parameters()} == {"meta"}
print([name for name in ("torch._dynamo", "torch._inductor") if name in sys.modules])
"""


def test_an_empty_network_does_not_bring_the_compiler():
    """It takes a second to load, which every command would wait for."""
    found = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr
