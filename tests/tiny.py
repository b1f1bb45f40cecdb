"""Stages so small that a test samples them in milliseconds; weights random, output not zero."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from cdm_cli.cascade.snapshot import save_ema
from cdm_cli.cascade.stage import Stage, build_net
from cdm_cli.cascade.stagefile import write_stage_file
from cdm_cli.cascade.weights import iterate_bytes, make_head
from cdm_cli.config import (
    ConditioningConfig,
    ModelConfig,
    SamplingDefaults,
    ScheduleConfig,
    StageConfig,
)
from cdm_cli.data.schema import PartSpec, StoreSpec
from cdm_cli.data.store import create, open_store
from cdm_cli.plans import DataInfo, Plan, StageFile, TrainingConfig

CLASSES = ("disk", "ring", "tench, Tinca tinca")
COSINE = ScheduleConfig(kind="cosine", T=20)
LINEAR = ScheduleConfig(kind="linear", T=50)


@contextmanager
def in_new_folder(tmp_path_factory):
    """Be in a folder that is kept for all tests of a module; gives its path."""
    home = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        yield home


def pack(tensors, metadata=None):
    """The bytes of a safetensors file of ours."""
    return b"".join([make_head(tensors, metadata).data, *map(bytes, iterate_bytes(tensors))])


def model(resolution, **changes):
    values = {
        "resolution": resolution, "channels": 3, "base_channels": 8, "channel_mult": (1, 2),
        "num_res_blocks": 1, "norm_groups": 4, "num_classes": len(CLASSES),
    }  # fmt: skip
    return ModelConfig(**(values | changes))


def base_config(resolution=8, *, steps=4, schedule=COSINE, **changes):
    return StageConfig(
        kind="base", model=model(resolution, **changes), schedule=schedule,
        sampling=SamplingDefaults(steps=steps),
    )  # fmt: skip


def sr_config(low=8, resolution=16, *, steps=3, **changes):
    values = {
        "kind": "sr", "model": model(resolution), "schedule": COSINE,
        "conditioning": ConditioningConfig(resolution=low, z_schedule=COSINE),
        "sampling": SamplingDefaults(steps=steps),
    }  # fmt: skip
    return StageConfig(**(values | changes))


def continuous_config(low=8, resolution=16, *, steps=5):
    """Like the paper's large stages: fixed variance, blur, fed the noise level itself."""
    return sr_config(
        low, resolution, steps=steps, schedule=LINEAR, variance="small", loss="simple",
        time_input="sqrt_alpha_bar",
        conditioning=ConditioningConfig(
            resolution=low, z_schedule=COSINE, gaussian=False, blur=True
        ),
    )  # fmt: skip


def net_of(config, seed=0):
    generator = torch.Generator().manual_seed(seed)
    net = build_net(config).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net


def stage_of(config, seed=0, classes=CLASSES):
    return Stage(config, classes, net_of(config, seed), name="tiny", digest="0" * 64)


def write_stage(directory: Path, config, seed=0, classes=CLASSES, data_digest="d" * 64) -> Path:
    """Write the directory of a stage that was "trained" (its weights are random)."""
    directory.mkdir(parents=True)
    plan = Plan(preset="tiny", source="tests", stage=config, training=TrainingConfig(steps=1))
    data = DataInfo(name="data.h5", digest=data_digest, classes=classes, num_train=64, num_val=32)
    write_stage_file(directory, StageFile(cdm_version="0", plan=plan, data=data))
    save_ema(directory, net_of(config, seed).state_dict(), step=1)
    return directory


class Told:
    """A report that remembers what it was told; `interfere` hears what is done, at each advance.

    done, total: of all bars but those within another one. before: what earlier runs had done.
    """

    def __init__(self, interfere=lambda done: None):
        self.lines, self.done, self.total, self.before = [], 0, 0, 0
        self._interfere, self._depth = interfere, 0

    def say(self, line):
        self.lines.append(line)

    @contextmanager
    def track(self, what, total, unit, done=0):
        counts = self._depth == 0
        if counts:
            self.total, self.done, self.before = (
                self.total + total, self.done + done, self.before + done
            )  # fmt: skip

        def advance(count, note):
            self.done += count * counts
            self._interfere(self.done)

        self._depth += 1
        try:
            yield advance
        finally:
            self._depth -= 1


def pictures(num, resolution, seed=0):
    """Smooth uint8 images [num, H, W, 3] whose mean colour follows the seed and place."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (num, 2, 2, 3))
    return small.repeat(resolution // 2, 1).repeat(resolution // 2, 2).astype(np.uint8)


def write_store(path, kind, parts, *, classes=CLASSES, provenance=None, block_size=64, blocks=None):
    """Write a store; parts: name to arrays by dataset name. blocks: write only so many."""
    specs = {name: part_spec(arrays) for name, arrays in parts.items()}
    spec = StoreSpec(
        kind=kind, parts=specs, classes=list(classes), provenance=provenance or {},
        block_size=block_size,
    )  # fmt: skip
    with create(path, spec) as store:
        for name, arrays in parts.items():
            part = store.parts[name]
            for block in part.list_missing()[:blocks]:
                rows = part.list_rows(block)
                part.write_block(
                    block, {key: array[rows.start : rows.stop] for key, array in arrays.items()}
                )
    return path


def part_spec(arrays):
    resolutions, z = {}, {}
    for key, array in arrays.items():
        room, _, number = key.partition("/")
        if room == "images":
            resolutions[int(number)] = array.shape[-1]
        elif room == "z":
            z[int(number)] = array.shape[1:]
    return PartSpec(num=len(arrays["ids"]), resolutions=resolutions, z=z)


def arrays_of(num, resolutions, *, seed=0, z=()):
    """Draw the contents of a part; each resolution is the block mean of the highest."""
    side = max(resolutions)
    full = pictures(num, side, seed)
    arrays = {"ids": np.arange(num), "labels": np.arange(num) % len(CLASSES)}
    for resolution in resolutions:
        factor = side // resolution
        arrays[f"images/{resolution}"] = full[:, ::factor, ::factor]
    low = min(resolutions)
    for s in z:
        rng = np.random.default_rng(s)
        arrays[f"z/{s}"] = rng.normal(size=(num, low, low, 3)).astype(np.float16)
    return arrays


def contents(path):
    """Return every array of a store, for comparison byte by byte."""
    with open_store(path) as store:
        found = {"digest": store.digest}
        for name, part in store.parts.items():
            found[f"{name}/ids"], found[f"{name}/labels"] = (
                part.ids.tobytes(),
                part.labels.tobytes(),
            )
            for resolution in part.resolutions:
                found[f"{name}/images/{resolution}"] = part.images(resolution).tobytes()
            for s in part.z_times:
                found[f"{name}/z/{s}"] = part.z(s).tobytes()
        return found
