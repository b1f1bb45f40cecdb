"""A cascade of two stores and their stages, made once, and how tests change and verify them."""

import shutil

import pytest

from cdm_cli.data.store import open_store
from cdm_cli.jobs.checking.verify import run
from cdm_cli.jobs.sampling import sample, upsample
from cdm_cli.options.files import VerifyOptions
from cdm_cli.options.sampling import Compute, SampleOptions, UpsampleOptions
from tests.asking import as_typed
from tests.tiny import Told, base_config, sr_config, write_stage

CPU = Compute(device="cpu", batch_size=24)  # blocks of 64 are batches of 24, 24 and 16


def make(home):
    """Make runs/base, runs/sr, lowres.h5 and samples.h5, and a stage that made neither."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        write_stage(home / "runs/base", base_config())
        write_stage(home / "runs/sr", sr_config())
        write_stage(home / "runs/other", base_config(), seed=9)
        sampled("lowres.h5")
        upsampled("samples.h5")
    return home


def copied(home, target, monkeypatch):
    """Copy what `make` made, and work there."""
    monkeypatch.chdir(target)
    shutil.copytree(home, target, dirs_exist_ok=True)
    return target


def sampled(out, **changes):
    values = {"num": 70, "keep_s": (5, 11), "out": out, "compute": CPU, "classes": "2,0"}
    sample.run(as_typed(SampleOptions, **(values | changes)), Told())


def upsampled(out, **changes):
    values = {"lowres": "lowres.h5", "model": "sr", "s": 5, "out": out, "compute": CPU}
    upsample.run(as_typed(UpsampleOptions, **(values | changes)), Told())


def verified(path="samples.h5", **changes):
    return run(as_typed(VerifyOptions, path=path, device="cpu", **changes), Told())


def flip(path, place, bit=1):
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ bit]))


def place_of(path, name, row=0):
    """Where a row of a member lies in the file."""
    with open_store(path) as store:
        member = store.parts[""].map_member(name)
        return member.offset + row * member[0].nbytes
