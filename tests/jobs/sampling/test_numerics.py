"""Mirrors cdm_cli/jobs/sampling/numerics.py.

What a run computes with follows from its flags and device.
"""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from cdm_cli.jobs.runtime.session import Session
from cdm_cli.jobs.sampling import numerics as stages
from cdm_cli.jobs.sampling.blocks import choose_block_size
from cdm_cli.jobs.sampling.numerics import choose_batch, choose_numerics
from cdm_cli.jobs.sampling.ready import BESIDE
from cdm_cli.options.sampling import Compute
from cdm_cli.presets import preset

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
BASE, LARGE = preset("cifar-base16").stage, preset("imagenet-sr64-256").stage


@pytest.fixture
def gpu(monkeypatch):
    """Let there be a GPU with 16 GiB."""
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=2**34)
    )
    for name, value in (
        ("choose_precision", "bf16"),
        ("name_device_class", "a GPU"),
        ("describe_build", "x"),
    ):
        monkeypatch.setattr(stages, name, lambda *_, value=value: value)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("num", [3, 64, 2000, 10_000, 50_000])
def test_a_batch_is_never_filled_up_to_more_than_a_block(num):
    """Half of the work would be in vain, or more, and a block is what processes share."""
    batch = choose_numerics(
        BASE, Session(CUDA), num, most_at_once=choose_block_size(num)
    ).batch_size
    assert batch <= choose_block_size(num)
    assert batch == choose_block_size(num)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("num", [3, 64, 2000, 10_000, 50_000])
def test_batches_that_memory_limits_are_equal_parts_of_a_block(num):
    size, limit = choose_block_size(num), choose_batch(LARGE, CUDA)
    batch = choose_batch(LARGE, CUDA, size)
    assert limit // 2 < batch
    assert batch * stages.estimate_image_bytes(LARGE.model) <= 2**33
    parts = -(-size // batch)
    assert parts * batch - size < parts, "less than one image a batch is filled up"


@pytest.mark.usefixtures("gpu")
def test_half_of_the_memory_is_enough_for_a_batch():
    batch = choose_batch(LARGE, CUDA)
    assert batch & (batch - 1) == 0
    assert 1 < batch < 16
    assert batch * stages.estimate_image_bytes(LARGE.model) <= 2**33
    assert choose_batch(BASE, CPU) == 64


@pytest.mark.usefixtures("gpu")
def test_a_flag_decides_then_what_was_begun_then_how_long_it_takes():
    long, before = 10**9, {"batch_size": 7, "precision": "fp32", "compiled": False}
    new = choose_numerics(BASE, Session(CUDA), long)
    assert (new.precision, new.compiled) == ("bf16", True)
    assert not choose_numerics(BASE, Session(CUDA), 1000).compiled
    assert not choose_numerics(BASE, Session(CPU), long).compiled
    held = choose_numerics(BASE, Session(CUDA), long, before, most_at_once=64)
    assert (held.batch_size, held.precision, held.compiled) == (7, "fp32", False)
    asked = choose_numerics(BASE, Session(CUDA, Compute(compile=True, batch_size=9)), 1, before)
    assert (asked.batch_size, asked.compiled) == (9, True)


MEASURED = """
import sys
from cdm_cli.cascade.chain import build_chain
from cdm_cli.cascade.fast import make_fast
from cdm_cli.cascade.generate import SampleInputs, generate
from cdm_cli.options.sampling import Sampling
from cdm_cli.presets import preset
from tests.tiny import stage_of
import torch

def measure(name):  # in KiB
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))

stage = make_fast(stage_of(preset("tiny-base16").stage), compiled=False)
before = measure("VmRSS")
num, ids = 256, torch.arange(256)
generate(stage, build_chain(stage.config, Sampling(steps=1)), SampleInputs(ids, ids % 10), seed=0,
         batch_size=num)
print((measure("VmHWM") - before) * 1024 // num)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by /proc")
def test_the_memory_of_an_image_is_what_it_is_estimated_to_be():
    run = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True)
    estimated = stages.estimate_image_bytes(preset("tiny-base16").stage.model)
    assert 0.5 * estimated < int(run.stdout) < 1.5 * estimated + BESIDE / 256, run.stderr
