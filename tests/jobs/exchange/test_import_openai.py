"""Mirrors cdm_cli/jobs/exchange/import_openai.py.

From a checkpoint of the peers to a stage that samples.
"""

import errno
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import save_file

from cdm_cli.cascade.checkpoint import load_diffusion_stage
from cdm_cli.cascade.foreign.openai_names import convert
from cdm_cli.cascade.snapshot import save_ema
from cdm_cli.cascade.stagefile import read_stage_file
from cdm_cli.data import disk
from cdm_cli.errors import (
    BadInputError,
    DiskError,
    MismatchError,
    UnsafeInputError,
    WouldOverwriteError,
)
from cdm_cli.jobs.exchange.import_openai import run
from cdm_cli.options.files import ImportOptions
from tests.asking import as_typed
from tests.cascade.openai_like import checkpoint, model, sr_stage, stage

FLAGS = ("--image_size 16 --diffusion_steps 1000", "rescale_learned_sigmas=True")


class Listener:
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture
def listener():
    return Listener()


def saved(path, config, dtype=torch.float32):
    tensors = {name: t.to(dtype) for name, t in checkpoint(config).items()}
    if path.suffix == ".pt":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    return path


def options(path, out, **changes):
    values = {"src": path, "out": out, "flags": FLAGS}
    return as_typed(ImportOptions, **(values | changes))


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_checkpoint_becomes_a_stage(tmp_path, listener, name, dtype):
    path = saved(tmp_path / name, stage(), dtype)
    found = run(options(path, tmp_path / "runs" / "base", from_pickle=True), listener)
    assert (found.kind, found.resolution, found.num_classes) == ("base", 16, 10)
    loaded = load_diffusion_stage("base", tmp_path / "runs")
    assert loaded.config == stage()
    assert loaded.classes == tuple("0123456789")
    tensors = {key: t.to(dtype) for key, t in checkpoint(stage()).items()}
    expected = convert(tensors, stage(), "m")
    weights = loaded.net.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in weights)
    assert found.parameters == sum(t.numel() for t in weights.values())
    assert found.sha256 in read_stage_file(found.stage).plan.source


def test_a_super_resolution_checkpoint_runs(tmp_path, listener):
    path = saved(tmp_path / "up.safetensors", sr_stage())
    flags = ("--large_size 16 --small_size 8",)
    found = run(options(path, tmp_path / "sr", flags=flags), listener)
    assert (found.kind, found.low_resolution) == ("sr", 8)
    loaded = load_diffusion_stage(tmp_path / "sr", tmp_path)
    z_s, y = torch.zeros(2, 3, 8, 8), torch.tensor([1, 2])
    eps_theta = loaded.eps_theta(loaded.schedule, y, z_s, torch.zeros(2, dtype=torch.int64))
    assert eps_theta(torch.zeros(2, 3, 16, 16), torch.tensor([1, 1000])).shape == (2, 6, 16, 16)


def test_what_no_flag_says_is_told(tmp_path, listener):
    run(options(saved(tmp_path / "m.safetensors", stage()), tmp_path / "a"), listener)
    assert listener.lines == [
        "m.safetensors: by default of its package, num_heads = 4, noise_schedule = linear"
    ]


def test_published_models_are_known_by_name(tmp_path, listener):
    config = stage(
        model=model(resolution=64, channel_mult=(1, 1, 1, 1), head_channels=16, base_channels=64,
                    attention_resolutions=(32, 16, 8), resblock_updown=True, qkv_order="new",
                    dropout=0.1),
    )  # fmt: skip
    path = saved(tmp_path / "64x64_diffusion.pt", config)
    found = run(options(path, tmp_path / "a", flags=(), from_pickle=True), listener)
    loaded = read_stage_file(found.stage).plan.stage
    assert loaded.model.model_dump(exclude={"num_heads", "head_channels"}) == (
        config.model.model_dump(exclude={"num_heads", "head_channels"})
    )
    assert loaded.model.head_channels == 64
    assert loaded.schedule.kind == "cosine"
    assert "the model that guided-diffusion published" in listener.lines[0]


def test_an_unconditional_model_has_one_class(tmp_path, listener):
    path = saved(tmp_path / "m.safetensors", stage(model=model(num_classes=0)))
    run(options(path, tmp_path / "a"), listener)
    assert load_diffusion_stage(tmp_path / "a", tmp_path).classes == ("all",)


def test_class_names_from_a_file(tmp_path, listener):
    path = saved(tmp_path / "m.safetensors", stage())
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"class, {k}" for k in range(10)) + "\n")
    run(options(path, tmp_path / "a", classes=names), listener)
    assert read_stage_file(tmp_path / "a").data.classes[9] == "class, 9"
    names.write_text("one\ntwo\n")
    with pytest.raises(MismatchError, match="2 names, the checkpoint has 10"):
        run(options(path, tmp_path / "b", classes=names), listener)
    names.write_bytes(b"\xff\xfe")
    with pytest.raises(BadInputError, match="neither a store nor UTF-8"):
        run(options(path, tmp_path / "b", classes=names), listener)
    assert not (tmp_path / "b").exists()


def test_nothing_is_overwritten_or_left_behind(tmp_path, listener):
    path = saved(tmp_path / "m.pt", stage())
    with pytest.raises(UnsafeInputError, match="--from-pickle"):
        run(options(path, tmp_path / "a"), listener)
    with pytest.raises(MismatchError):
        run(options(path, tmp_path / "a", flags=("--image_size 16 --num_channels 7",),
                    from_pickle=True), listener)  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.pt"]
    (tmp_path / "a").mkdir()
    with pytest.raises(WouldOverwriteError, match=r"a exists.*Next: -o \S*a-2$"):
        run(options(path, tmp_path / "a", from_pickle=True), listener)


def test_an_import_that_was_killed_is_repeated(tmp_path, listener):
    path = saved(tmp_path / "m.safetensors", stage())
    (tmp_path / ".a.partial").mkdir()
    (tmp_path / ".a.partial" / "ema.safetensors").write_bytes(b"half")
    run(options(path, tmp_path / "a"), listener)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "m.safetensors"]


def test_an_import_that_is_there_is_found(tmp_path, listener):
    """So that the same command ends the same, also where it was killed at its last call."""
    path = saved(tmp_path / "m.safetensors", stage())
    first = run(options(path, tmp_path / "a"), listener)
    with disk.announce_to(lambda io: pytest.fail(f"{io.kind} {io.path}")):
        assert run(options(path, tmp_path / "a"), listener) == first
    assert listener.lines[-1] == f"{tmp_path / 'a'} is there already"
    other = {name: t + 1 for name, t in checkpoint(stage()).items()}
    save_file(other, path)
    with pytest.raises(WouldOverwriteError, match="a exists, and is not this import"):
        run(options(path, tmp_path / "a"), listener)


def test_a_stage_that_was_trained_on_is_no_import(tmp_path, listener):
    path = saved(tmp_path / "m.safetensors", stage())
    run(options(path, tmp_path / "a"), listener)
    changed = {name: t + 1 for name, t in convert(checkpoint(stage()), stage(), "m").items()}
    save_ema(tmp_path / "a", changed, step=5)
    with pytest.raises(WouldOverwriteError, match="a exists, and is not this import"):
        run(options(path, tmp_path / "a"), listener)


@pytest.mark.parametrize("kind", ["mkdir", "write", "rename"])
def test_a_full_disk_leaves_nothing(tmp_path, listener, kind):
    path = saved(tmp_path / "m.safetensors", stage())

    def full(io):
        if io.kind == kind:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskError, match="No space"), disk.announce_to(full):
        run(options(path, tmp_path / "a"), listener)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.safetensors"]


@pytest.mark.parametrize("same", [True, False])
def test_two_imports_at_once_leave_each_other_alone(tmp_path, listener, same):
    """The second runs, whole, while the first has half of its files."""
    path, other = (saved(tmp_path / name, stage()) for name in ("m.safetensors", "n.safetensors"))
    found = []

    def at_stage_json(io):
        if io.path.name.startswith(".stage.json") and not found:
            found.append(None)
            found[0] = run(options(path if same else other, tmp_path / "a"), listener)

    refused = pytest.raises(WouldOverwriteError, match="a exists, and is not this import")
    with nullcontext() if same else refused, disk.announce_to(at_stage_json):
        assert run(options(path, tmp_path / "a"), listener) == found[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "m.safetensors", "n.safetensors"]
    assert load_diffusion_stage(tmp_path / "a", tmp_path).config == stage()
